// A thread sees to the elements of one 16-byte access, or to a single one: those that no vector
// holds where an operand is not aligned or the array ends.
#pragma once

#include "kernels/normal.h"
#include "kernels/random.h"

namespace nf::NF_TARGET::random_numbers {

inline constexpr int kRandomThreads = 256;

/// Vectors, then elements one by one.
struct Parts {
  std::int64_t vectors, elements;  // the latter counts all
};

/// Calls fn(first element, Philox bits of four from there on) for what the thread sees to; V is a
/// multiple of 4.
template <int V, typename Fn>
NF_DEVICE void for_each_draw(const Parts& parts, std::uint64_t key, std::uint64_t number, Fn fn) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * kRandomThreads + threadIdx.x;
  if (thread < parts.vectors) {
    Philox4 draws[V / 4];
    for (int d = 0; d < V / 4; ++d)
      draws[d] = philox(key, static_cast<std::uint64_t>(thread * (V / 4) + d), number);
    fn.vector(thread * V, draws);
    return;
  }
  const std::int64_t i = parts.vectors * V + (thread - parts.vectors);
  if (i < parts.elements) fn.element(i, philox(key, static_cast<std::uint64_t>(i / 4), number));
}

template <typename T>
struct Dropout {
  const T* x;
  T* y;
  std::uint32_t threshold;  // of 24 bits
  float scale;
  bool accumulate;

  NF_DEVICE T value(T in, T before, std::uint32_t bits) const {
    // Not fused with the sum, on no device.
    const float kept =
        (bits >> 8) >= threshold ? normal_detail::product(to_float(in), scale) : 0.0F;
    return from_float<T>(accumulate ? to_float(before) + kept : kept);
  }
  template <int D>
  NF_DEVICE void vector(std::int64_t first, const Philox4 (&draws)[D]) const {
    const Vec<T, 4 * D> in = load_vec<4 * D>(x + first);
    Vec<T, 4 * D> out = in;
    if (accumulate) out = load_vec<4 * D>(y + first);
    for (int v = 0; v < 4 * D; ++v) out.v[v] = value(in.v[v], out.v[v], draws[v / 4].v[v % 4]);
    store_vec(y + first, out);
  }
  NF_DEVICE void element(std::int64_t i, const Philox4& draw) const {
    const T in = x[i];
    y[i] = value(in, accumulate ? y[i] : in, draw.v[i % 4]);
  }
};

struct Uniform {
  NF_DEVICE static Normal4 numbers(const Philox4& bits) {
    Normal4 result;
    for (int i = 0; i < 4; ++i) result.v[i] = uniform01(bits.v[i]);
    return result;
  }
};
struct Gaussian {
  NF_DEVICE static Normal4 numbers(const Philox4& bits) { return normal4(bits); }
};

/// y = offset + number * scale.
template <typename T, typename Numbers>
struct Fill {
  T* y;
  float offset, scale;

  template <int D>
  NF_DEVICE void vector(std::int64_t first, const Philox4 (&draws)[D]) const {
    Vec<T, 4 * D> out;
    for (int d = 0; d < D; ++d) {
      const Normal4 four = Numbers::numbers(draws[d]);
      for (int i = 0; i < 4; ++i)
        out.v[4 * d + i] = from_float<T>(normal_detail::fused(four.v[i], scale, offset));
    }
    store_vec(y + first, out);
  }
  NF_DEVICE void element(std::int64_t i, const Philox4& draw) const {
    const Normal4 four = Numbers::numbers(draw);
    y[i] = from_float<T>(normal_detail::fused(four.v[i % 4], scale, offset));
  }
};

template <int V, typename Fn>
NF_KERNEL(kRandomThreads)
random_kernel(Fn fn, Parts parts, PhiloxKey key, std::uint64_t number) {
  for_each_draw<V>(parts, key.get(), number, fn);
}

}  // namespace nf::NF_TARGET::random_numbers
