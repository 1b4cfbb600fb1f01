// Under which conditions a benchmark ran: what its figures can't be compared without.
#pragma once

#include <string>

#include "engine/context.h"

namespace nf::bench {

/// "g++ 12.2.0"
std::string compiler();
/// "Release" or "Release, native", as CMake was told.
std::string build();
/// git describe of the sources at the last build, "unknown" outside of a repository.
std::string commit();
/// What convolutions and matrix products run on: "onednn 2.6.0", "eigen" or "cudnn, cublas".
std::string library(const ContextOptions& options);
/// Of the kernels on the CPU: "avx512", "avx2" or "baseline".
std::string cpu_isa();

}  // namespace nf::bench
