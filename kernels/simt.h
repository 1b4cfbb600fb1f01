// The vocabulary that hand-written kernels are written in. nvcc compiles them for the GPU, where
// all of this is CUDA itself; g++ compiles the same files for the emulator (kernels/emulator).
//
// Whoever includes it says for which of the two by NF_TARGET: the namespace, `cuda` or `simt`, of
// everything that is compiled once for each.
//
// Three rules: `launch`, not <<<>>>; no cooperative groups; inline PTX only beside a portable path.
#pragma once

#if !defined(NF_TARGET)
#error "kernels: define NF_TARGET as cuda or simt"
#endif

#include <cstdint>

#include "kernels/kernel_error.h"
#include "kernels/stream.h"

namespace nf {

/// Blocks of a grid, or threads of a block.
struct Extent {
  std::int64_t x = 1, y = 1, z = 1;
};

}  // namespace nf

#define NF_IS_EMULATED_simt 1
#define NF_IS_EMULATED_cuda 0
#define NF_JOIN_EXPANDED(a, b) a##b
#define NF_JOIN(a, b) NF_JOIN_EXPANDED(a, b)

#if defined(__CUDACC__)
#include "kernels/simt_cuda.h"
#elif NF_JOIN(NF_IS_EMULATED_, NF_TARGET)
#include "kernels/emulator/simt_emulator.h"
#else
// The host's view of launchers that nvcc compiles.
#define NF_DEVICE inline
#endif
