// What the kernels of batch norm share: how rows and channels are dealt out, and the output of a
// channel's element, which the backward pass computes again to the same bits.
//
// V = kVec<T> elements are one vector. A tensor whose channel count V does not divide is taken as
// one of fewer, longer rows of period = lcm(channels, V) virtual channels, so that a vector keeps
// its channels from row to row: virtual channel j is channel j % channels. The last elements, too
// few for a vector, are the tail.
#pragma once

#include <type_traits>

#include "kernels/batch_norm.h"

namespace nf::NF_TARGET {

inline constexpr int kBatchNormThreads = 256;

/// A block takes `lanes` neighbouring vectors of rows_per_split rows, row_lanes of them at a time.
struct BatchNormLayout {
  std::int32_t channels, period;
  std::int32_t columns;       // vectors in a row
  std::int32_t repeats_log2;  // of period / channels
  std::int32_t lanes, row_lanes;
  std::int32_t tiles, splits;  // blocks along a row, and along the rows
  std::int64_t rows_per_split;
  std::int64_t full_rows;     // rows of `columns` vectors
  std::int32_t more_columns;  // vectors in the row behind them
  std::int32_t tail;          // elements behind those, fewer than V
  std::int64_t tail_begin;
  std::int32_t tail_channel;  // of the first of them
};

/// Where a thread begins and ends.
struct BatchNormPlace {
  std::int32_t first;  // virtual channel of its vector's first element
  bool inside;         // it has a column; whether it has rows tell the two below
  std::int64_t row, end;
};

/// What turns x into y.
struct BatchNormScaling {
  const float* mean;
  const float* spread;  // 1 / sqrt(var + eps), or the variance itself where `running`
  const float* gamma;
  const float* beta;
  float eps;
  bool running;
  bool activate;
  float bound;
  bool vectors;  // V channels can be accessed together
};

/// Of V virtual channels.
template <int V>
struct BatchNormChannels {
  float mean[V], scale[V], beta[V];
};

NF_DEVICE std::int64_t rows_of(const BatchNormLayout& layout, std::int32_t column) {
  return layout.full_rows + (column < layout.more_columns ? 1 : 0);
}

template <typename T>
NF_DEVICE BatchNormPlace batch_norm_place(const BatchNormLayout& layout) {
  const auto block = static_cast<std::int32_t>(blockIdx.x);
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t split = block / layout.tiles;
  const std::int32_t row_lane = thread / layout.lanes;
  const std::int32_t column =
      (block - split * layout.tiles) * layout.lanes + thread - row_lane * layout.lanes;
  BatchNormPlace place;
  place.first = column * kVec<T>;
  place.inside = column < layout.columns && row_lane < layout.row_lanes;
  place.row = split * layout.rows_per_split + row_lane;
  const std::int64_t rows = place.inside ? rows_of(layout, column) : 0;
  const std::int64_t end = (split + 1) * layout.rows_per_split;
  place.end = rows < end ? rows : end;
  return place;
}

/// Calls body(U as a type, position) for the thread's rows, U at a time and then one by one; all
/// one by one where not `aligned`: elements loaded alone take a register each.
template <int U, typename Body>
NF_DEVICE void for_rows(const BatchNormLayout& layout, const BatchNormPlace& place, bool aligned,
                        const Body& body) {
  const std::int64_t step = std::int64_t{layout.row_lanes} * layout.period;
  std::int64_t row = place.row, at = row * layout.period + place.first;
  if (aligned)
    for (; row + (U - 1) * layout.row_lanes < place.end;
         row += U * layout.row_lanes, at += U * step)
      body(std::integral_constant<int, U>{}, at);
  for (; row < place.end; row += layout.row_lanes, at += step)
    body(std::integral_constant<int, 1>{}, at);
}

/// Rows `step` elements apart, aligned where there are several.
template <int U, int V, typename T>
NF_DEVICE void load_rows(const T* p, std::int64_t step, bool aligned, Vec<T, V> (&rows)[U]) {
  if (U > 1 || aligned) {
#pragma unroll
    for (int u = 0; u < U; ++u) rows[u] = load_vec<V>(p + u * step);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) rows[0].v[v] = p[v];
  }
}

template <int V, typename T>
NF_DEVICE void store_row(T* p, bool aligned, const Vec<T, V>& row) {
  if (aligned)
    store_vec(p, row);
  else
#pragma unroll
    for (int v = 0; v < V; ++v) p[v] = row.v[v];
}

NF_DEVICE std::int32_t channel_of(const BatchNormLayout& layout, std::int32_t virtual_channel) {
  return virtual_channel < layout.channels ? virtual_channel : virtual_channel % layout.channels;
}

/// Channel of element i of the tail.
NF_DEVICE std::int32_t tail_channel(const BatchNormLayout& layout, std::int32_t i) {
  return channel_of(layout, layout.tail_channel + i);
}

/// p, of all channels, for V virtual ones; by vectors where V divides the channels.
template <int V, typename P>
NF_DEVICE void load_channels(const BatchNormLayout& layout, const P* p, std::int32_t first,
                             bool vectors, float (&values)[V]) {
  constexpr int kTogether = V < kVec<P> ? V : kVec<P>;
  if (vectors) {
#pragma unroll
    for (int i = 0; i < V; i += kTogether) {
      const Vec<P, kTogether> part = load_vec<kTogether>(p + first + i);
#pragma unroll
      for (int v = 0; v < kTogether; ++v) values[i + v] = to_float(part.v[v]);
    }
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = to_float(p[channel_of(layout, first + v)]);
  }
}

NF_DEVICE float running_scale(float gamma, float variance, float eps) {
  return gamma / __fsqrt_rn(variance + eps);
}

template <int V>
NF_DEVICE void load_scaling(const BatchNormLayout& layout, const BatchNormScaling& by,
                            std::int32_t first, BatchNormChannels<V>& channels) {
  float spread[V];
  load_channels(layout, by.mean, first, by.vectors, channels.mean);
  load_channels(layout, by.spread, first, by.vectors, spread);
  load_channels(layout, by.gamma, first, by.vectors, channels.scale);
  load_channels(layout, by.beta, first, by.vectors, channels.beta);
#pragma unroll
  for (int v = 0; v < V; ++v)
    channels.scale[v] = by.running ? running_scale(channels.scale[v], spread[v], by.eps)
                                   : channels.scale[v] * spread[v];
}

/// Before the residual. The fused product is spelt out: both passes must round alike.
NF_DEVICE float normalised(float x, float mean, float scale, float beta) {
  return __fmaf_rn(x - mean, scale, beta);
}

/// NaN stays.
NF_DEVICE float activated(const BatchNormScaling& by, float value) {
  if (!by.activate) return value;
  value = value < 0.0F ? 0.0F : value;
  return by.bound < value ? by.bound : value;
}

/// What the gradient is made of.
template <typename T>
struct BatchNormUpstream {
  const T* x;
  const T* y;  // null: computed from x
  const T* dy;
  bool aligned;
};

/// x, and dy where the activation let pass, else 0.
template <int U, int V, typename T>
NF_DEVICE void load_gradient(const BatchNormUpstream<T>& from, const BatchNormScaling& by,
                             const BatchNormChannels<V>& channels, std::int64_t at,
                             std::int64_t step, Vec<T, V> (&x)[U], Vec<T, V> (&gradient)[U]) {
  load_rows(from.x + at, step, from.aligned, x);
  load_rows(from.dy + at, step, from.aligned, gradient);
  if (!by.activate) return;
  Vec<T, V> y[U];
  if (from.y != nullptr) {
    load_rows(from.y + at, step, from.aligned, y);
  } else {
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v)
        y[u].v[v] = from_float<T>(activated(by, normalised(to_float(x[u].v[v]), channels.mean[v],
                                                           channels.scale[v], channels.beta[v])));
  }
#pragma unroll
  for (int u = 0; u < U; ++u)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float output = to_float(y[u].v[v]);
      if (!(output > 0.0F && output < by.bound)) gradient[u].v[v] = from_float<T>(0.0F);
    }
}

}  // namespace nf::NF_TARGET
