// Threads inside operators, and loops for the widest vectors of the machine.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/backends/cpu/instruction_set.h"

namespace nf::cpu {

/// Elements of an element-wise loop below which a second thread costs more than it brings.
inline constexpr std::int64_t kGrain = 16384;

/// How many chunks `range` is cut into: at most `threads`, none smaller than `grain`.
inline int chunks(int threads, std::int64_t range, std::int64_t grain) {
  const std::int64_t most = range / std::max<std::int64_t>(grain, 1);
  return static_cast<int>(std::clamp<std::int64_t>(most, 1, threads));
}

/// Calls fn(begin, end, chunk) once per chunk of 0..range. The cut depends on the arguments alone,
/// so that a sum of partial results in the order of chunks is the same in every run. The team has
/// always the same size: the runtime ends and starts threads when it changes.
template <typename Fn>
void parallel_for(int threads, std::int64_t range, std::int64_t grain, const Fn& fn) {
  if (range <= 0) return;
  const int parts = chunks(threads, range, grain);
  if (parts == 1) return fn(std::int64_t{0}, range, 0);
#if defined(NF_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1)
#endif
  for (int part = 0; part < parts; ++part)
    fn(range * part / parts, range * (part + 1) / parts, part);
}

#if defined(NF_WIDEST_AT_RUN_TIME) && !defined(__AVX2__)
// `flatten` pulls the whole loop into the function and so under its instruction set.
template <typename Fn>
__attribute__((target("avx2,fma"), flatten, noinline)) void run_avx2(Fn fn) {
  fn();
}

/// Runs a loop that was compiled for AVX2 too, where kernels use it. Capture by value: what is
/// captured by reference the compiler has to read again after every store.
template <typename Fn>
void vectorised(Fn fn) {
  if (instruction_set() >= InstructionSet::avx2)
    run_avx2(fn);
  else
    fn();
}
#else
template <typename Fn>
void vectorised(Fn fn) {
  fn();
}
#endif

/// parallel_for over a loop that is worth compiling for wide vectors.
template <typename Fn>
void parallel_simd(int threads, std::int64_t range, std::int64_t grain, Fn fn) {
  parallel_for(threads, range, grain, [&](std::int64_t begin, std::int64_t end, int chunk) {
    vectorised([=] { fn(begin, end, chunk); });
  });
}

}  // namespace nf::cpu
