// Kernels of the gradient of depthwise filters: blocks sum over some rows of dy each, and leave
// their sums, by tap and channel, in the workspace; a second kernel adds those up.
#pragma once

#include "kernels/depthwise_conv2d.cuh"

namespace nf::NF_TARGET {

inline constexpr int kTapsTogether = 8;  // of one row of a filter, by a thread of the general path
inline constexpr int kReduceElements = 8;  // 32 bytes of each part
inline constexpr int kMostReduceSlots = kDepthwiseThreads / kReduceElements;

/// One launch of blocks (parts, rows of taps, chunks of channels), chunks first.
struct DepthwiseWeightPass {
  std::int32_t h = 0, w = 0, out_h = 0, out_w = 0;
  std::int32_t kh = 0, kw = 0, stride = 1, padding = 0;
  std::int64_t c = 0;
  std::int64_t rows = 0;       // of dy, all images
  std::int32_t part_rows = 0;  // of a part
  std::int32_t row_items = 1;  // groups of columns, or columns on the general path, in a row
  std::int32_t lanes = 1;      // of channels in a block
  Divider by_chunks = {}, by_lanes = {}, by_row_items = {}, by_out_h = {}, by_tap_groups = {},
          by_kh = {};
};

/// Adds up `sum` over the slots of `width` threads that a block consists of; slot 0 gets it all.
/// `shared` holds N rows of half a block.
template <int N>
NF_DEVICE void sum_over_slots(float* shared, int width, float (&sum)[N]) {
  constexpr int kStride = kDepthwiseThreads / 2;
  const int thread = static_cast<int>(threadIdx.x), slot = thread / width;
  for (int slots = static_cast<int>(blockDim.x) / width; slots > 1;) {
    const int half = (slots + 1) / 2;
    if (slot >= half && slot < slots)
#pragma unroll
      for (int i = 0; i < N; ++i) shared[i * kStride + thread - half * width] = sum[i];
    __syncthreads();
    if (slot + half < slots)
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += shared[i * kStride + thread];
    __syncthreads();
    slots = half;
  }
}

/// Filters of K x K at stride S; c is a multiple of a vector's length, x and dy are aligned to 16
/// bytes. Slots of K x lanes threads; each thread sums for one row of taps.
template <typename T, int K, int S>
NF_KERNEL(kDepthwiseThreads)
depthwise_weight_kernel(DepthwiseWeightPass p, const T* x, const T* dy, float* partial) {
  constexpr int V = kVec<T>, kColumns = S * (kOutputs - 1) + K;
  NF_SHARED(float, shared, [K * V * (kDepthwiseThreads / 2)]);
  auto part = static_cast<std::int32_t>(blockIdx.x);
  const std::int32_t chunk = take_remainder(part, p.by_chunks);
  auto slot = static_cast<std::int32_t>(threadIdx.x);
  const std::int64_t channel =
      (std::int64_t{chunk} * p.lanes + take_remainder(slot, p.by_lanes)) * V;
  const std::int32_t kh = slot % K;
  slot /= K;
  const auto slots = static_cast<std::int32_t>(blockDim.x) / (p.lanes * K);
  const std::int64_t begin = std::int64_t{part} * p.part_rows;
  const auto rows =
      p.rows - begin < p.part_rows ? static_cast<std::int32_t>(p.rows - begin) : p.part_rows;
  const std::int32_t items = channel < p.c ? rows * p.row_items : 0;
  float sum[K * V] = {};
#pragma unroll 1
  for (std::int32_t item = slot; item < items; item += slots) {
    std::int32_t row = item;
    const std::int32_t first_out = take_remainder(row, p.by_row_items) * kOutputs;
    auto image = static_cast<std::int32_t>(begin + row);
    const std::int32_t oh = take_remainder(image, p.by_out_h);
    const std::int32_t ih = oh * S - p.padding + kh;
    if (!within(ih, p.h)) continue;
    const std::int32_t first_in = first_out * S - p.padding;
    const T* inputs = x + ((std::int64_t{image} * p.h + ih) * p.w + first_in) * p.c + channel;
    const T* upstream =
        dy + ((std::int64_t{image} * p.out_h + oh) * p.out_w + first_out) * p.c + channel;
    Packed cells[kColumns] = {}, gradients[kOutputs] = {};
#pragma unroll
    for (int o = 0; o < kOutputs; ++o, upstream += p.c)
      if (first_out + o < p.out_w) gradients[o] = load_packed(upstream);
#pragma unroll
    for (int j = 0; j < kColumns; ++j, inputs += p.c)
      if (within(first_in + j, p.w)) cells[j] = load_packed(inputs);
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      if (first_out + o >= p.out_w) continue;
      float g[V];
#pragma unroll
      for (int v = 0; v < V; ++v) g[v] = element<T>(gradients[o], v);
#pragma unroll
      for (int kw = 0; kw < K; ++kw) {
        const int j = o * S + kw;
        // The padding is not there, not even to turn an infinite gradient into a NaN.
        if (!within(first_in + j, p.w)) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) sum[kw * V + v] += element<T>(cells[j], v) * g[v];
      }
    }
  }
  sum_over_slots(shared, p.lanes * K, sum);
  if (slot > 0 || channel >= p.c) return;
  float* to = partial + (std::int64_t{part} * K + kh) * K * p.c + channel;
#pragma unroll
  for (int kw = 0; kw < K; ++kw)
#pragma unroll
    for (int first = 0; first < V; first += 4) {
      Vec<float, 4> four;
#pragma unroll
      for (int v = 0; v < 4; ++v) four.v[v] = sum[kw * V + first + v];
      store_vec(to + kw * p.c + first, four);
    }
}

/// Filters, strides, channels and alignments of any kind. Slots of `lanes` threads, one channel
/// each; a block sums for up to kTapsTogether taps of a row.
template <typename T>
NF_KERNEL(kDepthwiseThreads)
depthwise_weight_any_kernel(DepthwiseWeightPass p, const T* x, const T* dy, float* partial) {
  NF_SHARED(float, shared, [kTapsTogether * (kDepthwiseThreads / 2)]);
  auto part = static_cast<std::int32_t>(blockIdx.x);
  const std::int32_t chunk = take_remainder(part, p.by_chunks);
  const std::int32_t first_kw = take_remainder(part, p.by_tap_groups) * kTapsTogether;
  const std::int32_t kh = take_remainder(part, p.by_kh);
  auto slot = static_cast<std::int32_t>(threadIdx.x);
  const std::int64_t channel = std::int64_t{chunk} * p.lanes + take_remainder(slot, p.by_lanes);
  const auto slots = static_cast<std::int32_t>(blockDim.x) / p.lanes;
  const std::int64_t begin = std::int64_t{part} * p.part_rows;
  const auto rows =
      p.rows - begin < p.part_rows ? static_cast<std::int32_t>(p.rows - begin) : p.part_rows;
  const std::int32_t items = channel < p.c ? rows * p.row_items : 0;
  float sum[kTapsTogether] = {};
  for (std::int32_t item = slot; item < items; item += slots) {
    std::int32_t row = item;
    const std::int32_t ow = take_remainder(row, p.by_row_items);
    auto image = static_cast<std::int32_t>(begin + row);
    const std::int32_t oh = take_remainder(image, p.by_out_h);
    const std::int32_t ih = oh * p.stride - p.padding + kh;
    if (!within(ih, p.h)) continue;
    const float g =
        to_float(dy[((std::int64_t{image} * p.out_h + oh) * p.out_w + ow) * p.c + channel]);
    const T* inputs = x + (std::int64_t{image} * p.h + ih) * p.w * p.c + channel;
#pragma unroll
    for (int t = 0; t < kTapsTogether; ++t) {
      const std::int32_t iw = ow * p.stride - p.padding + first_kw + t;
      if (first_kw + t < p.kw && within(iw, p.w)) sum[t] += to_float(inputs[iw * p.c]) * g;
    }
  }
  sum_over_slots(shared, p.lanes, sum);
  if (slot > 0 || channel >= p.c) return;
  float* to = partial + ((std::int64_t{part} * p.kh + kh) * p.kw + first_kw) * p.c + channel;
#pragma unroll
  for (int t = 0; t < kTapsTogether; ++t)
    if (first_kw + t < p.kw) to[t * p.c] = sum[t];
}

/// dw (c, taps) from partial (parts, taps, c).
template <typename T>
NF_KERNEL(kDepthwiseThreads)
depthwise_weight_reduce_kernel(std::int64_t parts, std::int64_t taps, std::int64_t c,
                               const float* partial, T* dw, bool accumulate) {
  NF_SHARED(float, shared, [kDepthwiseThreads / 2]);
  const int lane = static_cast<int>(threadIdx.x) % kReduceElements;
  const int slot = static_cast<int>(threadIdx.x) / kReduceElements;
  const int slots = static_cast<int>(blockDim.x) / kReduceElements;
  const std::int64_t element = std::int64_t{blockIdx.x} * kReduceElements + lane;
  const std::int64_t elements = taps * c;
  float sum[1] = {};
  if (element < elements)
#pragma unroll 4
    for (std::int64_t part = slot; part < parts; part += slots)
      sum[0] += partial[part * elements + element];
  sum_over_slots(shared, kReduceElements, sum);
  if (slot > 0 || element >= elements) return;
  T* to = dw + element % c * taps + element / c;
  *to = from_float<T>(accumulate ? to_float(*to) + sum[0] : sum[0]);
}

}  // namespace nf::NF_TARGET
