// Kernels over flat arrays. An array is taken as a head of elements until all operands are aligned,
// then vectors, then a tail; head and tail are the scalars, which the same threads see to one by
// one. Operands that are never aligned together are scalars throughout. Kernels are given pointers
// to the first vector: with the head added to each access, nvcc 13 splits 16-byte stores.
#pragma once

#include "kernels/divider.h"
#include "kernels/elementwise.h"

namespace nf::NF_TARGET::elementwise {

inline constexpr int kElementwiseThreads = 256;
/// Accesses to each operand that a thread has under way at a time.
inline constexpr int kAtOnce = 2;
/// Vectors, or scalars, that a block sees to.
inline constexpr int kElementwiseChunk = kAtOnce * kElementwiseThreads;

struct Parts {
  std::int64_t head, vectors, scalars;
};

/// Elements of an access: 16 bytes of the wider type.
template <typename From, typename To>
inline constexpr int kTogether = kVec<From> < kVec<To> ? kVec<From> : kVec<To>;

template <typename T, int K>
struct Operands {
  const T* x[K];
};

/// The thread's first vector or scalar; the others are kElementwiseThreads apart.
NF_DEVICE std::int64_t elementwise_first() {
  return std::int64_t{blockIdx.x} * kElementwiseChunk + threadIdx.x;
}

/// Position of scalar i, counted from the first vector.
template <int V>
NF_DEVICE std::int64_t scalar_position(const Parts& parts, std::int64_t i) {
  return i < parts.head ? i - parts.head : i - parts.head + parts.vectors * V;
}

/// out[i] = op(in[0][i], …, in[K - 1][i])
template <int K, typename From, typename To, typename Op>
NF_KERNEL(kElementwiseThreads)
map_kernel(Op op, Operands<From, K> in, To* out, Parts parts) {
  constexpr int V = kTogether<From, To>;
  const std::int64_t first = elementwise_first();
  Vec<From, V> x[kAtOnce][K];
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i < parts.vectors)
#pragma unroll
      for (int k = 0; k < K; ++k) x[u][k] = load_vec<V>(in.x[k] + i * V);
  }
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i >= parts.vectors) break;
    Vec<To, V> y;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float values[K];
#pragma unroll
      for (int k = 0; k < K; ++k) values[k] = to_float(x[u][k].v[v]);
      y.v[v] = from_float<To>(op(values));
    }
    store_vec(out + i * V, y);
  }
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t scalar = first + u * kElementwiseThreads;
    if (scalar >= parts.scalars) break;
    const std::int64_t i = scalar_position<V>(parts, scalar);
    float values[K];
#pragma unroll
    for (int k = 0; k < K; ++k) values[k] = to_float(in.x[k][i]);
    out[i] = from_float<To>(op(values));
  }
}

struct Identity {
  NF_DEVICE float operator()(const float (&x)[1]) const { return x[0]; }
};

struct Sum {
  NF_DEVICE float operator()(const float (&x)[2]) const { return x[0] + x[1]; }
};

struct Axpy {
  float alpha;
  NF_DEVICE float operator()(const float (&x)[2]) const { return __fmaf_rn(alpha, x[0], x[1]); }
};

struct Scale {
  float alpha;
  NF_DEVICE float operator()(const float (&x)[1]) const { return alpha * x[0]; }
};

template <typename T>
NF_DEVICE float rectified(float x, float bound) {
  // In this order a NaN passes through.
  const float limit = to_float(from_float<T>(bound));
  const float cut = x < 0.0F ? 0.0F : x;
  return limit < cut ? limit : cut;
}

template <typename T>
struct Relu {
  float bound;
  NF_DEVICE float operator()(const float (&x)[1]) const { return rectified<T>(x[0], bound); }
};

/// Operands y, dy and, to add to it, dx.
template <typename T, int K>
struct ReluBackward {
  float bound;
  NF_DEVICE float operator()(const float (&x)[K]) const {
    const float limit = to_float(from_float<T>(bound));
    const float masked = x[0] > 0.0F && x[0] < limit ? x[1] : 0.0F;
    if constexpr (K == 3)
      return x[2] + masked;
    else
      return masked;
  }
};

template <typename T>
NF_DEVICE T biased(float y, float bias, float residual, const AfterBias<T>& then) {
  const float sum = y + bias + residual;
  return from_float<T>(then.activate ? rectified<T>(sum, then.bound) : sum);
}

/// y of fewer than 2^31 elements. `aligned_bias`: a vector's channels can be loaded together.
template <typename T>
NF_KERNEL(kElementwiseThreads)
add_bias_kernel(const T* bias, T* y, AfterBias<T> then, Parts parts, Divider by_channels,
                bool aligned_bias) {
  constexpr int V = kVec<T>;
  const std::int64_t first = elementwise_first();
  const bool adds = then.residual != nullptr;
  Vec<T, V> x[kAtOnce], r[kAtOnce] = {};
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i < parts.vectors) {
      x[u] = load_vec<V>(y + i * V);
      if (adds) r[u] = load_vec<V>(then.residual + i * V);
    }
  }
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i >= parts.vectors) break;
    auto index = static_cast<std::int32_t>(parts.head + i * V);
    std::int32_t c = take_remainder(index, by_channels);
    Vec<T, V> b;
    if (aligned_bias) {
      b = load_vec<V>(bias + c);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        b.v[v] = bias[c];
        if (++c == by_channels.divisor) c = 0;
      }
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      x[u].v[v] =
          biased(to_float(x[u].v[v]), to_float(b.v[v]), adds ? to_float(r[u].v[v]) : 0.0F, then);
    store_vec(y + i * V, x[u]);
  }
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t scalar = first + u * kElementwiseThreads;
    if (scalar >= parts.scalars) break;
    const std::int64_t i = scalar_position<V>(parts, scalar);
    auto index = static_cast<std::int32_t>(parts.head + i);
    const std::int32_t c = take_remainder(index, by_channels);
    y[i] =
        biased(to_float(y[i]), to_float(bias[c]), adds ? to_float(then.residual[i]) : 0.0F, then);
  }
}

/// y of fewer than 2^31 elements.
template <typename T>
NF_KERNEL(kElementwiseThreads)
spread_rows_kernel(float factor, const float* x, T* y, Parts parts, Divider by_columns,
                   bool accumulate) {
  constexpr int V = kVec<T>;
  const std::int64_t first = elementwise_first();
  Vec<T, V> values[kAtOnce];
  if (accumulate) {
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const std::int64_t i = first + u * kElementwiseThreads;
      if (i < parts.vectors) values[u] = load_vec<V>(y + i * V);
    }
  }
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i >= parts.vectors) break;
    auto row = static_cast<std::int32_t>(parts.head + i * V);
    std::int32_t column = take_remainder(row, by_columns);
    float in = x[row];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      values[u].v[v] =
          from_float<T>(__fmaf_rn(factor, in, accumulate ? to_float(values[u].v[v]) : -0.0F));
      if (++column == by_columns.divisor && v + 1 < V) {
        column = 0;
        in = x[++row];
      }
    }
    store_vec(y + i * V, values[u]);
  }
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t scalar = first + u * kElementwiseThreads;
    if (scalar >= parts.scalars) break;
    const std::int64_t i = scalar_position<V>(parts, scalar);
    const std::int32_t row = quotient(static_cast<std::int32_t>(parts.head + i), by_columns);
    y[i] = from_float<T>(__fmaf_rn(factor, x[row], accumulate ? to_float(y[i]) : -0.0F));
  }
}

/// Word: an unsigned integer of the elements' size.
template <typename Word>
NF_KERNEL(kElementwiseThreads)
fill_kernel(Word value, Word* y, Parts parts) {
  constexpr int V = kVec<Word>;
  const std::int64_t first = elementwise_first();
  Vec<Word, V> values;
#pragma unroll
  for (int v = 0; v < V; ++v) values.v[v] = value;
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i < parts.vectors) store_vec(y + i * V, values);
    if (i < parts.scalars) y[scalar_position<V>(parts, i)] = value;
  }
}

/// In accesses of `width` bytes.
template <int width>
NF_KERNEL(kElementwiseThreads)
copy_kernel(const std::uint8_t* x, std::uint8_t* y, Parts parts) {
  const std::int64_t first = elementwise_first();
  Vec<std::uint8_t, width> values[kAtOnce];
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i < parts.vectors) values[u] = load_vec<width>(x + i * width);
  }
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * kElementwiseThreads;
    if (i < parts.vectors) store_vec(y + i * width, values[u]);
    if (i >= parts.scalars) continue;
    const std::int64_t scalar = scalar_position<width>(parts, i);
    y[scalar] = x[scalar];
  }
}

}  // namespace nf::NF_TARGET::elementwise
