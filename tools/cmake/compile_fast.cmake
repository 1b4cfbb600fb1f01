# What makes a build from nothing short and a second one shorter: ccache, precompiled headers and,
# with -DCMAKE_UNITY_BUILD=ON, eight files compiled as one. Whoever edits one file at a time builds
# without the last. (-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON without it shows an include that a file
# forgot.)

find_program(NF_CCACHE ccache)
if(NF_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Two checkouts share their results; precompiled headers need the looser comparison.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${NF_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-fpch-preprocess)
  endif()
endif()

# nf_precompile(TARGET headers…): the standard headers that nearly every file needs, and `headers`.
function(nf_precompile target)
  if(CMAKE_UNITY_BUILD)
    return()  # too few compilations are left to pay for it
  endif()
  target_precompile_headers(${target} PRIVATE <algorithm> <array> <cmath> <cstdint> <cstring>
    <filesystem> <fstream> <functional> <map> <memory> <mutex> <numeric> <optional> <random> <span>
    <stdexcept> <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector>
    <fmt/core.h> ${ARGN})
endfunction()
