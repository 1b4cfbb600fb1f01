# The package as another project finds it: installed beside the build, then used from outside.
set(package_prefix ${CMAKE_BINARY_DIR}/package/prefix)
set(package_options --build-generator ${CMAKE_GENERATOR} --build-options
  -DCMAKE_PREFIX_PATH=${package_prefix} -DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE}
  -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER})
if(NF_CCACHE)
  list(APPEND package_options -DCMAKE_CXX_COMPILER_LAUNCHER=${NF_CCACHE})
endif()
if(NF_SANITIZE)
  list(APPEND package_options "-DCMAKE_CXX_FLAGS=-fsanitize=${NF_SANITIZE} -fno-sanitize-recover=all")
endif()

add_test(NAME package.install
  COMMAND ${CMAKE_COMMAND} --install ${CMAKE_BINARY_DIR} --prefix ${package_prefix}
    --component development)
# Files that are no longer installed must not stay behind.
add_test(NAME package.clean COMMAND ${CMAKE_COMMAND} -E rm -rf ${package_prefix})
set_tests_properties(package.clean PROPERTIES FIXTURES_SETUP package_clean)
set_tests_properties(package.install PROPERTIES
  FIXTURES_SETUP package FIXTURES_REQUIRED package_clean)

add_test(NAME package.headers
  COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/package
    ${CMAKE_BINARY_DIR}/package/headers ${package_options})
add_test(NAME embed
  COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/embed
    ${CMAKE_BINARY_DIR}/package/embed ${package_options} --test-command embed)
set_tests_properties(package.headers embed PROPERTIES FIXTURES_REQUIRED package TIMEOUT 1800)
