// The kernels of batch norm that write tensors, one pass each.
#pragma once

#include "kernels/batch_norm.cuh"

namespace nf::NF_TARGET {

template <typename T>
struct BatchNormForward {
  const T* x;
  const T* residual;  // may be null
  T* y;
  bool aligned;
};

/// U rows of y.
template <int U, int V, typename T>
NF_DEVICE void normalise_rows(const BatchNormForward<T>& to, const BatchNormScaling& by,
                              const BatchNormChannels<V>& channels, std::int64_t at,
                              std::int64_t step) {
  Vec<T, V> x[U], residual[U] = {};
  load_rows(to.x + at, step, to.aligned, x);
  if (to.residual != nullptr) load_rows(to.residual + at, step, to.aligned, residual);
#pragma unroll
  for (int u = 0; u < U; ++u) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float value =
          normalised(to_float(x[u].v[v]), channels.mean[v], channels.scale[v], channels.beta[v]);
      if (to.residual != nullptr) value += to_float(residual[u].v[v]);
      x[u].v[v] = from_float<T>(activated(by, value));
    }
    store_row(to.y + at + u * step, U > 1 || to.aligned, x[u]);
  }
}

/// Must load x and (where given) the residual and store y, once each, and does.
template <typename T>
NF_KERNEL(kBatchNormThreads)
batch_norm_normalise_kernel(BatchNormLayout layout, BatchNormScaling by, BatchNormForward<T> to) {
  const BatchNormPlace place = batch_norm_place<T>(layout);
  const std::int64_t step = std::int64_t{layout.row_lanes} * layout.period;
  if (place.row < place.end) {
    BatchNormChannels<kVec<T>> channels;
    load_scaling(layout, by, place.first, channels);
    for_rows<4>(layout, place, to.aligned, [&](auto rows, std::int64_t at) {
      normalise_rows<rows.value>(to, by, channels, at, step);
    });
  }
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  if (blockIdx.x > 0 || thread >= layout.tail) return;
  BatchNormChannels<1> channel;
  load_scaling(layout, by, tail_channel(layout, thread), channel);
  normalise_rows<1>(to, by, channel, layout.tail_begin + thread, 0);
}

/// With g the masked gradient, dx = scale * g - offset - (x - mean) * slope.
template <typename T>
struct BatchNormBackward {
  const float* offset;
  const float* slope;
  T* dx;
  T* dresidual;  // = g; may be null
};

/// U rows of dx.
template <int U, int V, typename T>
NF_DEVICE void input_gradient_rows(const BatchNormUpstream<T>& from, const BatchNormScaling& by,
                                   const BatchNormBackward<T>& to,
                                   const BatchNormChannels<V>& channels, const float (&offset)[V],
                                   const float (&slope)[V], std::int64_t at, std::int64_t step) {
  Vec<T, V> x[U], gradient[U];
  load_gradient(from, by, channels, at, step, x, gradient);
#pragma unroll
  for (int u = 0; u < U; ++u) {
#pragma unroll
    for (int v = 0; v < V; ++v)
      x[u].v[v] = from_float<T>(channels.scale[v] * to_float(gradient[u].v[v]) - offset[v] -
                                (to_float(x[u].v[v]) - channels.mean[v]) * slope[v]);
    store_row(to.dx + at + u * step, U > 1 || from.aligned, x[u]);
    if (to.dresidual != nullptr)
      store_row(to.dresidual + at + u * step, U > 1 || from.aligned, gradient[u]);
  }
}

/// Must load x, dy and (where given) y and store dx and dresidual, once each, and does.
template <typename T>
NF_KERNEL(kBatchNormThreads)
batch_norm_input_gradient_kernel(BatchNormLayout layout, BatchNormScaling by,
                                 BatchNormUpstream<T> from, BatchNormBackward<T> to) {
  const BatchNormPlace place = batch_norm_place<T>(layout);
  const std::int64_t step = std::int64_t{layout.row_lanes} * layout.period;
  if (place.row < place.end) {
    BatchNormChannels<kVec<T>> channels;
    float offset[kVec<T>], slope[kVec<T>];
    load_scaling(layout, by, place.first, channels);
    load_channels(layout, to.offset, place.first, by.vectors, offset);
    load_channels(layout, to.slope, place.first, by.vectors, slope);
    for_rows<2>(layout, place, from.aligned, [&](auto rows, std::int64_t at) {
      input_gradient_rows<rows.value>(from, by, to, channels, offset, slope, at, step);
    });
  }
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  if (blockIdx.x > 0 || thread >= layout.tail) return;
  BatchNormChannels<1> channel;
  float offset[1], slope[1];
  const std::int32_t c = tail_channel(layout, thread);
  load_scaling(layout, by, c, channel);
  load_channels(layout, to.offset, c, false, offset);
  load_channels(layout, to.slope, c, false, slope);
  input_gradient_rows<1>(from, by, to, channel, offset, slope, layout.tail_begin + thread, 0);
}

/// A warp takes one filter of k weights, the first `vectors` times four of them by fours.
/// Must load w and store folded_w once, and does.
NF_KERNEL(kBatchNormThreads)
batch_norm_fold_kernel(BatchNormScaling by, const float* w, const float* bias, float* folded_w,
                       float* folded_bias, std::int64_t o, std::int64_t k, std::int64_t vectors) {
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const std::int64_t channel = std::int64_t{blockIdx.x} * (kBatchNormThreads / 32) + thread / 32;
  const std::int32_t lane = thread % 32;
  if (channel >= o) return;
  const float scale = running_scale(by.gamma[channel], by.spread[channel], by.eps);
  if (lane == 0)
    folded_bias[channel] = normalised(bias == nullptr ? 0.0F : bias[channel], by.mean[channel],
                                      scale, by.beta[channel]);
  const float* from = w + channel * k;
  float* to = folded_w + channel * k;
#pragma unroll 4
  for (std::int64_t i = lane; i < vectors; i += 32) {
    Vec<float, 4> weights = load_vec<4>(from + 4 * i);
    for (int v = 0; v < 4; ++v) weights.v[v] *= scale;
    store_vec(to + 4 * i, weights);
  }
  for (std::int64_t i = 4 * vectors + lane; i < k; i += 32) to[i] = from[i] * scale;
}

}  // namespace nf::NF_TARGET
