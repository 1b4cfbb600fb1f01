// Vectors as wide as the machine's, for loops that no compiler cuts into registers by itself.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "engine/backends/cpu/instruction_set.h"

namespace nf::cpu {

/// Floats that a register holds; arithmetic on them is the compiler's own.
template <int lanes>
struct Floats {
  typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));
  // Read and written where an array of floats is, whatever its alignment.
  typedef float Anywhere
      __attribute__((vector_size(lanes * sizeof(float)), aligned(alignof(float)), may_alias));
};

template <int lanes>
using Vector = typename Floats<lanes>::Vector;

// Vectors go by reference: by value their calling convention depends on the instruction set.

/// `count` floats, all that a vector holds unless `part`; zeros beyond.
template <int lanes, bool part = false>
void load(const float* from, Vector<lanes>& to, std::int64_t count = lanes) {
  if constexpr (!part) {
    to = *reinterpret_cast<const typename Floats<lanes>::Anywhere*>(from);
  } else {
    float all[lanes] = {};
    for (std::int64_t k = 0; k < count; ++k) all[k] = from[k];
    to = *reinterpret_cast<const typename Floats<lanes>::Anywhere*>(all);
  }
}

template <int lanes, bool part = false>
void store(const Vector<lanes>& from, float* to, std::int64_t count = lanes) {
  if constexpr (!part) {
    *reinterpret_cast<typename Floats<lanes>::Anywhere*>(to) = from;
  } else {
    float all[lanes];
    *reinterpret_cast<typename Floats<lanes>::Anywhere*>(all) = from;
    for (std::int64_t k = 0; k < count; ++k) to[k] = all[k];
  }
}

/// Keeps the compiler from reading a vector from memory again at each of its uses.
template <typename V>
void hold(V& vector) {
#if defined(__x86_64__) && defined(__GNUC__)
  asm("" : "+v"(vector));
#endif
}

template <int value>
using Constant = std::integral_constant<int, value>;

// `flatten` pulls the whole loop into the function and so under its instruction set.
template <int lanes, typename Fn>
__attribute__((flatten, noinline)) void run_as_built(const Fn& fn) {
  fn(Constant<lanes>{});
}

#if defined(NF_WIDEST_AT_RUN_TIME)
template <typename Fn>
__attribute__((target("avx512f,avx512vl,avx512dq,fma"), flatten, noinline)) void run_16_lanes(
    const Fn& fn) {
  fn(Constant<16>{});
}

template <typename Fn>
__attribute__((target("avx2,fma"), flatten, noinline)) void run_8_lanes(const Fn& fn) {
  fn(Constant<8>{});
}
#endif

/// Calls fn(Constant<lanes>{}) compiled for the widest vectors that kernels use.
template <typename Fn>
void widest(const Fn& fn) {
#if defined(NF_WIDEST_AT_RUN_TIME)
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return run_16_lanes(fn);
    case InstructionSet::avx2:
      return run_8_lanes(fn);
    case InstructionSet::baseline:
      return run_as_built<4>(fn);
  }
#elif defined(__AVX512F__)
  run_as_built<16>(fn);
#elif defined(__AVX2__)
  run_as_built<8>(fn);
#else
  run_as_built<4>(fn);
#endif
}

/// Calls fn(Constant<count>{}) for a count of 1 to `most`.
template <int most, typename Fn>
void with_count(std::int64_t count, const Fn& fn) {
  if constexpr (most == 1)
    fn(Constant<1>{});
  else if (count >= most)
    fn(Constant<most>{});
  else
    with_count<most - 1>(count, fn);
}

}  // namespace nf::cpu
