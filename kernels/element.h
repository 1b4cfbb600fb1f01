// Element types that kernels store, all computed with in float, and 16-byte accesses to them.
#pragma once

#include <cstdint>

#include "kernels/half.h"
#include "kernels/simt.h"
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace nf::NF_TARGET {

/// IEEE half precision and bfloat16, as bits.
struct f16 {
  std::uint16_t bits;
};
struct bf16 {
  std::uint16_t bits;
};

NF_DEVICE float to_float(float value) { return value; }
#if defined(__CUDACC__)
NF_DEVICE float to_float(f16 value) { return __half2float(__ushort_as_half(value.bits)); }
NF_DEVICE float to_float(bf16 value) { return __uint_as_float(std::uint32_t{value.bits} << 16); }
#else
NF_DEVICE float to_float(f16 value) { return f16_to_float(value.bits); }
NF_DEVICE float to_float(bf16 value) { return bf16_to_float(value.bits); }
#endif

/// Rounds to nearest even.
template <typename T>
NF_DEVICE T from_float(float value);
template <>
NF_DEVICE float from_float<float>(float value) {
  return value;
}
template <>
NF_DEVICE f16 from_float<f16>(float value) {
#if defined(__CUDACC__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  return {float_to_f16(value)};
#endif
}
template <>
NF_DEVICE bf16 from_float<bf16>(float value) {
#if defined(__CUDACC__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  return {float_to_bf16(value)};
#endif
}

/// N neighbours, read or written in one access: N * sizeof(T) is 2, 4, 8 or 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
};

/// Elements of T in a 16-byte access.
template <typename T>
inline constexpr int kVec = 16 / static_cast<int>(sizeof(T));

#if defined(__CUDACC__) || NF_JOIN(NF_IS_EMULATED_, NF_TARGET)
#if defined(__CUDACC__)
// The register type of an access of so many bytes.
template <int bytes>
struct Word;
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};
#endif

/// `p` is aligned to N * sizeof(T) bytes.
template <int N, typename T>
NF_DEVICE Vec<T, N> load_vec(const T* p) {
  Vec<T, N> value;
#if defined(__CUDACC__)
  const auto word = *reinterpret_cast<const typename Word<sizeof(value)>::type*>(p);
  memcpy(&value, &word, sizeof(value));
#else
  emulator::read_together(&value, p, sizeof(value));
#endif
  return value;
}

template <int N, typename T>
NF_DEVICE void store_vec(T* p, const Vec<T, N>& value) {
#if defined(__CUDACC__)
  typename Word<sizeof(value)>::type word;
  memcpy(&word, &value, sizeof(value));
  *reinterpret_cast<decltype(word)*>(p) = word;
#else
  emulator::write_together(p, &value, sizeof(value));
#endif
}
#endif

/// Whether all of `pointers` (null counts as aligned) allow 16-byte accesses.
template <typename... Pointers>
bool aligned16(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace nf::NF_TARGET
