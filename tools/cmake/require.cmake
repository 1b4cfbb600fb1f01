# find_package that names the Debian package when something is missing.
macro(nf_require package debian)
  find_package(${package} QUIET ${ARGN})
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "NeuroFlux needs ${package}, which was not found. On Debian or Ubuntu: "
      "apt install ${debian} (tools/quickstart installs all that is needed).")
  endif()
endmacro()
