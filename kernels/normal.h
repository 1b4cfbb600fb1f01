// Standard normal numbers from Philox bits, the same on every device: by Box-Muller, with
// logarithm, sine and cosine made of correctly rounded operations alone. Their polynomials are
// those of Moshier's Cephes library (logf, sinf, cosf).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/philox.h"

namespace nf {
namespace normal_detail {

// A compiler may fuse a product and a sum, or not; these it must take as they stand.
NF_HOST_DEVICE inline float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}
NF_HOST_DEVICE inline float product(float a, float b) { return fused(a, b, -0.0F); }
NF_HOST_DEVICE inline float root(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return std::sqrt(a);
#endif
}
NF_HOST_DEVICE inline std::uint32_t to_bits(float a) {
  std::uint32_t bits;
  memcpy(&bits, &a, sizeof(bits));
  return bits;
}
NF_HOST_DEVICE inline float from_bits(std::uint32_t bits) {
  float a;
  memcpy(&a, &bits, sizeof(a));
  return a;
}

/// log(x) for a normal x > 0.
NF_HOST_DEVICE inline float logarithm(float x) {
  const std::uint32_t bits = to_bits(x);
  // x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
  int e = static_cast<int>(bits >> 23) - 126;
  float m = from_bits((bits & 0x7fffffU) | 0x3f000000U);
  if (m < 0.70710678F) {
    m += m;
    --e;
  }
  const float f = m - 1.0F, z = product(f, f), exponent = static_cast<float>(e);
  float p = 7.0376836292e-2F;
  p = fused(p, f, -1.1514610310e-1F);
  p = fused(p, f, 1.1676998740e-1F);
  p = fused(p, f, -1.2420140846e-1F);
  p = fused(p, f, 1.4249322787e-1F);
  p = fused(p, f, -1.6668057665e-1F);
  p = fused(p, f, 2.0000714765e-1F);
  p = fused(p, f, -2.4999993993e-1F);
  p = fused(p, f, 3.3333331174e-1F);
  p = product(product(p, f), z);
  p = fused(-2.12194440e-4F, exponent, p);
  p = fused(-0.5F, z, p);
  return fused(0.693359375F, exponent, f + p);
}

struct SinCos {
  float sin, cos;
};

/// Of 2 pi turns, turns in [0, 1).
NF_HOST_DEVICE inline SinCos sin_cos(float turns) {
  const float quarters = turns * 4.0F;  // exact, as is the rest
  const int quadrant = static_cast<int>(quarters + 0.5F);
  const float x = product(quarters - static_cast<float>(quadrant), 1.57079632679F);
  const float z = product(x, x);
  float s = fused(-1.9515295891e-4F, z, 8.3321608736e-3F);
  s = fused(s, z, -1.6666654611e-1F);
  s = fused(product(s, z), x, x);
  float c = fused(2.443315711809948e-5F, z, -1.388731625493765e-3F);
  c = fused(c, z, 4.166664568298827e-2F);
  c = fused(product(c, z), z, fused(-0.5F, z, 1.0F));
  switch (quadrant & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

}  // namespace normal_detail

struct Normal4 {
  float v[4];
};

/// Four standard normal numbers, none beyond 5.8, from one draw of the generator.
NF_HOST_DEVICE inline Normal4 normal4(const Philox4& bits) {
  Normal4 result;
  for (int pair = 0; pair < 2; ++pair) {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    const float u = 1.0F - uniform01(bits.v[2 * pair]);
    const float radius =
        normal_detail::root(normal_detail::product(-2.0F, normal_detail::logarithm(u)));
    const normal_detail::SinCos angle = normal_detail::sin_cos(uniform01(bits.v[2 * pair + 1]));
    result.v[2 * pair] = normal_detail::product(radius, angle.cos);
    result.v[2 * pair + 1] = normal_detail::product(radius, angle.sin);
  }
  return result;
}

}  // namespace nf
