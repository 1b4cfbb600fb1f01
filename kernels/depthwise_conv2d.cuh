// Kernels of depthwise convolution, forward and for the input's gradient. Those of the filters'
// gradient are in depthwise_weight.cuh.
#pragma once

#include "kernels/depthwise_conv2d.h"
#include "kernels/divider.h"

namespace nf::NF_TARGET {

inline constexpr int kDepthwiseThreads = 256;
inline constexpr int kOutputs = 4;         // of one thread, along W
inline constexpr int kChannelVectors = 8;  // of one block, at most
inline constexpr int kChannelLanes = 32;   // of one block of the general path, at most
inline constexpr int kStagedTaps = 64;     // that the general path keeps at a time

/// How a thread's outputs lie over its inputs. The input's gradient at stride 1 is a convolution
/// with the filters turned round; at stride 2 every other tap reaches an output.
enum class Reach { stride1, stride2, gather2 };

/// One launch, in either direction: `in` and `out` are the direction's own.
struct DepthwisePass {
  std::int32_t in_h = 0, in_w = 0, out_h = 0, out_w = 0;
  std::int32_t kh = 0, kw = 0, stride = 1, padding = 0;
  std::int64_t c = 0;
  std::int64_t rows = 0;    // of `out`, all images
  bool turned = false;      // the filters by 180 degrees
  bool gather = false;      // the input's gradient, on the general path
  bool accumulate = false;  // add to `out`
  // A block: lanes of channels, groups of kOutputs columns, rows.
  std::int32_t lanes = 1, groups = 1, block_rows = 1;
  std::int32_t row_groups = 1;  // in a row of `out`
  Divider by_lanes = {}, by_groups = {}, by_chunks = {}, by_tiles = {}, by_out_h = {},
          by_stride = {};
};

/// What a thread works at: a lane of a chunk of channels, a group of a row of an image.
struct DepthwiseTask {
  std::int32_t chunk, lane, image, row, group;
  bool inside;
};

NF_DEVICE DepthwiseTask depthwise_task(const DepthwisePass& p) {
  DepthwiseTask task;
  auto block = static_cast<std::int32_t>(blockIdx.x);
  auto thread = static_cast<std::int32_t>(threadIdx.x);
  task.chunk = take_remainder(block, p.by_chunks);
  const std::int32_t tile = take_remainder(block, p.by_tiles);
  task.lane = take_remainder(thread, p.by_lanes);
  task.group = tile * p.groups + take_remainder(thread, p.by_groups);
  const std::int64_t row = std::int64_t{block} * p.block_rows + thread;
  task.inside = row < p.rows && task.group < p.row_groups;
  task.image = task.inside ? static_cast<std::int32_t>(row) : 0;
  task.row = take_remainder(task.image, p.by_out_h);
  return task;
}

/// Input columns under a thread's outputs.
template <int K, Reach reach>
NF_DEVICE constexpr int input_columns() {
  return reach == Reach::gather2   ? kOutputs / 2 + (K - 1) / 2
         : reach == Reach::stride2 ? 2 * (kOutputs - 1) + K
                                   : kOutputs - 1 + K;
}

/// Which of them tap kw of an output reads; -1 for none.
template <int K, Reach reach>
NF_DEVICE constexpr int input_column(int output, int kw) {
  if (reach == Reach::gather2) return (output - kw) % 2 == 0 ? (output - kw) / 2 + (K - 1) / 2 : -1;
  return reach == Reach::stride2 ? output * 2 + kw : output + kw;
}

/// 16 bytes as they lie in memory: four registers until an element is asked for.
using Packed = Vec<std::uint32_t, 4>;

template <typename T>
NF_DEVICE Packed load_packed(const T* from) {
  return load_vec<4>(reinterpret_cast<const std::uint32_t*>(from));
}

template <typename T>
NF_DEVICE float element(const Packed& packed, int v) {
  if constexpr (sizeof(T) == 4)
    return __uint_as_float(packed.v[v]);
  else
    return to_float(T{static_cast<std::uint16_t>(packed.v[v / 2] >> (v % 2 * 16))});
}

NF_DEVICE bool within(std::int32_t index, std::int32_t size) {
  return static_cast<std::uint32_t>(index) < static_cast<std::uint32_t>(size);
}

/// Where channel v of a lane's vector lies in a staged row: neighbouring lanes read neighbouring 16
/// bytes.
NF_DEVICE int staged(int lanes, int lane, int v) { return (v / 4 * lanes + lane) * 4 + v % 4; }

template <int V>
NF_DEVICE void load_staged(const float* row, int lanes, int lane, float (&values)[V]) {
#pragma unroll
  for (int first = 0; first < V; first += 4) {
    const Vec<float, 4> four = load_vec<4>(row + staged(lanes, lane, first));
#pragma unroll
    for (int v = 0; v < 4; ++v) values[first + v] = four.v[v];
  }
}

/// Filters of K x K. c is a multiple of a vector's length; `in`, `w` and `out` are aligned to 16
/// bytes.
template <typename T, int K, Reach reach>
NF_KERNEL(kDepthwiseThreads)
depthwise_kernel(DepthwisePass p, const T* in, const T* w, const T* bias, T* out) {
  constexpr int V = kVec<T>, kTaps = K * K, kColumns = input_columns<K, reach>();
  // A row for each tap, then the bias. Four floats more than needed spread a channel's taps over
  // the banks.
  NF_SHARED(float, filters, [(kTaps + 1) * (kChannelVectors * V + 4)]);
  const DepthwiseTask task = depthwise_task(p);
  const int lanes = p.lanes, stride = lanes * V + 4;
  const std::int64_t begin = std::int64_t{task.chunk} * lanes * V;
  const int channels = p.c - begin < lanes * V ? static_cast<int>(p.c - begin) : lanes * V;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
#pragma unroll 1
  for (int first = thread * V; first < channels * kTaps; first += threads * V) {
    const Packed some = load_packed(w + begin * kTaps + first);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int channel = (first + v) / kTaps, tap = (first + v) % kTaps;
      filters[(p.turned ? kTaps - 1 - tap : tap) * stride +
              staged(lanes, channel / V, channel % V)] = element<T>(some, v);
    }
  }
#pragma unroll 1
  for (int channel = thread; channel < channels; channel += threads)
    filters[kTaps * stride + staged(lanes, channel / V, channel % V)] =
        bias == nullptr ? 0.0F : to_float(bias[begin + channel]);
  __syncthreads();
  if (!task.inside || task.lane * V >= channels) return;

  // Gathering, a group's first output is one that even taps reach.
  const std::int32_t first_out =
      task.group * kOutputs - (reach == Reach::gather2 ? p.padding % 2 : 0);
  const std::int32_t first_in = reach == Reach::gather2
                                    ? (first_out + p.padding) / 2 - (K - 1) / 2
                                    : first_out * (reach == Reach::stride2 ? 2 : 1) - p.padding;
  const std::int64_t channel = begin + task.lane * V;
  float sum[kOutputs][V];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o)
    load_staged(filters + kTaps * stride, lanes, task.lane, sum[o]);
#pragma unroll 1
  for (int kh = reach == Reach::gather2 ? (task.row + p.padding) % 2 : 0; kh < K;
       kh += reach == Reach::gather2 ? 2 : 1) {
    const std::int32_t row = reach == Reach::gather2
                                 ? (task.row + p.padding - kh) / 2
                                 : task.row * (reach == Reach::stride2 ? 2 : 1) - p.padding + kh;
    if (!within(row, p.in_h)) continue;
    const T* from =
        in + ((std::int64_t{task.image} * p.in_h + row) * p.in_w + first_in) * p.c + channel;
    Packed cells[kColumns] = {};
#pragma unroll
    for (int j = 0; j < kColumns; ++j, from += p.c)
      if (within(first_in + j, p.in_w)) cells[j] = load_packed(from);
    float taps[K][V];
#pragma unroll
    for (int kw = 0; kw < K; ++kw)
      load_staged(filters + (kh * K + kw) * stride, lanes, task.lane, taps[kw]);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      // What lies in the padding is not there, not even to turn an infinite tap into a NaN.
      if (!within(first_in + j, p.in_w)) continue;
      float x[V];
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] = element<T>(cells[j], v);
#pragma unroll
      for (int o = 0; o < kOutputs; ++o)
#pragma unroll
        for (int kw = 0; kw < K; ++kw)
          if (input_column<K, reach>(o, kw) == j)
#pragma unroll
            for (int v = 0; v < V; ++v) sum[o][v] += x[v] * taps[kw][v];
    }
  }
  T* to =
      out + ((std::int64_t{task.image} * p.out_h + task.row) * p.out_w + first_out) * p.c + channel;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o, to += p.c) {
    if (!within(first_out + o, p.out_w)) continue;
    if (p.accumulate) {
      const Packed before = load_packed(to);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[o][v] = element<T>(before, v) + sum[o][v];
    }
    Vec<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.v[v] = from_float<T>(sum[o][v]);
    store_vec(to, result);
  }
}

/// The row or column that tap k of an output reads, outside of the input where there is none.
NF_DEVICE std::int32_t input_of(const DepthwisePass& p, std::int32_t output, std::int32_t k) {
  if (!p.gather) return output * p.stride - p.padding + k;
  std::int32_t whole = output + p.padding - k;
  if (whole < 0) return -1;
  return take_remainder(whole, p.by_stride) == 0 ? whole : -1;
}

/// Filters, strides, channels and alignments of any kind; one channel for each thread.
template <typename T>
NF_KERNEL(kDepthwiseThreads)
depthwise_any_kernel(DepthwisePass p, const T* in, const T* w, const T* bias, T* out) {
  NF_SHARED(float, filters, [kStagedTaps * (kChannelLanes + 1)]);
  const DepthwiseTask task = depthwise_task(p);
  const std::int64_t begin = std::int64_t{task.chunk} * p.lanes, channel = begin + task.lane;
  const int channels = p.c - begin < p.lanes ? static_cast<int>(p.c - begin) : p.lanes;
  const bool inside = task.inside && task.lane < channels;
  const std::int32_t first_out = task.group * kOutputs;
  const std::int32_t all_taps = p.kh * p.kw;
  float sum[kOutputs];
  const float start = bias != nullptr && inside ? to_float(bias[channel]) : 0.0F;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) sum[o] = start;
  std::int32_t kh = 0, kw = 0;
  for (std::int32_t first = 0; first < all_taps; first += kStagedTaps) {
    const int taps = all_taps - first < kStagedTaps ? all_taps - first : kStagedTaps;
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < channels * taps;
         e += static_cast<int>(blockDim.x))
      filters[e % taps * (kChannelLanes + 1) + e / taps] =
          to_float(w[(begin + e / taps) * all_taps + first + e % taps]);
    __syncthreads();
    if (!inside) continue;
    for (int t = 0; t < taps; ++t) {
      const std::int32_t row = input_of(p, task.row, kh);
      if (within(row, p.in_h)) {
        const float tap = filters[t * (kChannelLanes + 1) + task.lane];
        const T* from = in + (std::int64_t{task.image} * p.in_h + row) * p.in_w * p.c + channel;
#pragma unroll
        for (int o = 0; o < kOutputs; ++o) {
          const std::int32_t column = input_of(p, first_out + o, kw);
          if (within(column, p.in_w)) sum[o] += to_float(from[column * p.c]) * tap;
        }
      }
      if (++kw == p.kw) {
        kw = 0;
        ++kh;
      }
    }
  }
  if (!inside) return;
  T* to =
      out + ((std::int64_t{task.image} * p.out_h + task.row) * p.out_w + first_out) * p.c + channel;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o)
    if (first_out + o < p.out_w)
      to[o * p.c] = from_float<T>(p.accumulate ? to_float(to[o * p.c]) + sum[o] : sum[o]);
}

}  // namespace nf::NF_TARGET
