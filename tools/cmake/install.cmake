# The package NeuroFlux: what find_package(NeuroFlux) of another project gets.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/NeuroFlux)

install(TARGETS nf_engine nf_nn nf_neuroflux EXPORT NeuroFluxTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(EXPORT NeuroFluxTargets NAMESPACE NeuroFlux:: DESTINATION ${package_folder}
  COMPONENT development)

# Backends are reached through engine/backend.h alone; their headers name other libraries.
install(DIRECTORY engine neuroflux nn
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/neuroflux COMPONENT development
  FILES_MATCHING PATTERN "*.h" PATTERN backends EXCLUDE)
# Of kernels/ what the host uses as well.
install(FILES kernels/error.h kernels/half.h kernels/philox.h kernels/update_scalars.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/neuroflux/kernels COMPONENT development)

configure_package_config_file(tools/cmake/NeuroFluxConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/NeuroFluxConfig.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/NeuroFluxConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/NeuroFluxConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/NeuroFluxConfigVersion.cmake tools/cmake/FindxxHash.cmake tools/cmake/Findliburing.cmake
  DESTINATION ${package_folder} COMPONENT development)

if(TARGET neuroflux)
  install(TARGETS neuroflux RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
endif()
