# find_package that names the Debian package when something is missing.
macro(nf_require package debian)
  find_package(${package} QUIET ${ARGN})
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "NeuroFlux needs ${package}, which was not found. On Debian or Ubuntu: "
      "apt install ${debian} (tools/setup installs all that a build needs, "
      "tools/setup --tests also what NF_TESTS and NF_BENCH need).")
  endif()
endmacro()
