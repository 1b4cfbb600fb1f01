// The kernels of batch norm that sum over rows: a block over its split of them, into partials, and
// behind it one that adds the splits up.
#pragma once

#include "kernels/batch_norm.cuh"

namespace nf::NF_TARGET {

inline constexpr int kFinishChannels = 8;  // of a block; their partials fill two sectors
inline constexpr int kFinishLanes = 64;    // threads that share a channel's splits
inline constexpr int kFinishThreads = kFinishChannels * kFinishLanes;

/// Merges W floats of all row lanes into those of the first: merge(mine, other).
template <int W, typename Merge>
NF_DEVICE void merge_row_lanes(const BatchNormLayout& layout, float (&mine)[W],
                               const Merge& merge) {
  NF_SHARED(float, all, [W][kBatchNormThreads]);
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t row_lane = thread / layout.lanes;
#pragma unroll
  for (int w = 0; w < W; ++w) all[w][thread] = mine[w];
  for (std::int32_t count = layout.row_lanes; count > 1;) {
    const std::int32_t half = (count + 1) / 2;
    __syncthreads();
    if (row_lane + half < count) {
      float other[W];
#pragma unroll
      for (int w = 0; w < W; ++w) other[w] = all[w][thread + half * layout.lanes];
      merge(mine, other);
#pragma unroll
      for (int w = 0; w < W; ++w) all[w][thread] = mine[w];
    }
    count = half;
  }
}

/// partials (splits, period, 2): the first and the second V of `values`, side by side.
template <typename T>
NF_DEVICE void store_partials(const BatchNormLayout& layout, const BatchNormPlace& place,
                              const float* values, float* partials) {
  constexpr int V = kVec<T>;
  if (!place.inside || static_cast<std::int32_t>(threadIdx.x) >= layout.lanes) return;
  const std::int64_t split = static_cast<std::int32_t>(blockIdx.x) / layout.tiles;
  float* to = partials + 2 * (split * layout.period + place.first);
#pragma unroll
  for (int v = 0; v < V; v += 2)
    store_vec(to + 2 * v,
              Vec<float, 4>{{values[v], values[V + v], values[v + 1], values[V + v + 1]}});
}

/// The mean of each channel less its pivot, the first row's element, and the squared deviations
/// from that mean. Less the pivot, the mean is rounded as the spread is. Must and does load x once.
template <typename T>
NF_KERNEL(kBatchNormThreads)
batch_norm_statistics_kernel(BatchNormLayout layout, const T* x, bool aligned, bool vectors,
                             float* partials) {
  constexpr int V = kVec<T>;
  const BatchNormPlace place = batch_norm_place<T>(layout);
  const std::int64_t step = std::int64_t{layout.row_lanes} * layout.period;
  float moments[2 * V + 1] = {};  // means, squares, rows
  if (place.row < place.end) {
    float pivot[V];
    load_channels(layout, x, place.first, vectors, pivot);
    for_rows<4>(layout, place, aligned, [&](auto rows, std::int64_t at) {
      constexpr int U = rows.value;
      Vec<T, V> cells[U];
      load_rows(x + at, step, aligned, cells);
      // Welford's update by U rows: their deviations from the mean so far shift it.
      moments[2 * V] += static_cast<float>(U);
      const float inverse = 1.0F / moments[2 * V];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        float sum = 0, squares = 0;
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const float d = (to_float(cells[u].v[v]) - pivot[v]) - moments[v];
          sum += d;
          squares += d * d;
        }
        const float shift = sum * inverse;
        moments[v] += shift;
        moments[V + v] += squares - sum * shift;
      }
    });
  }
  // Chan, Golub, LeVeque: "Algorithms for computing the sample variance", 1983.
  merge_row_lanes(layout, moments, [](float(&mine)[2 * V + 1], const float(&other)[2 * V + 1]) {
    const float before = mine[2 * V];
    mine[2 * V] += other[2 * V];
    const float share = mine[2 * V] > 0 ? other[2 * V] / mine[2 * V] : 0.0F;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float delta = other[v] - mine[v];
      mine[v] += delta * share;
      mine[V + v] += other[V + v] + delta * delta * before * share;
    }
  });
  store_partials<T>(layout, place, moments, partials);
}

/// Sums of the masked gradient g and of g * (x - mean).
/// Must load x, dy and (where given) y once, and does.
template <typename T>
NF_KERNEL(kBatchNormThreads)
batch_norm_gradient_sums_kernel(BatchNormLayout layout, BatchNormScaling by,
                                BatchNormUpstream<T> from, float* partials) {
  constexpr int V = kVec<T>;
  const BatchNormPlace place = batch_norm_place<T>(layout);
  const std::int64_t step = std::int64_t{layout.row_lanes} * layout.period;
  float sums[2 * V] = {};
  if (place.row < place.end) {
    BatchNormChannels<V> channels;
    load_scaling(layout, by, place.first, channels);
    for_rows<2>(layout, place, from.aligned, [&](auto rows, std::int64_t at) {
      constexpr int U = rows.value;
      Vec<T, V> x[U], gradient[U];
      load_gradient(from, by, channels, at, step, x, gradient);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        float sum = 0, product = 0;
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const float g = to_float(gradient[u].v[v]);
          sum += g;
          product += g * (to_float(x[u].v[v]) - channels.mean[v]);
        }
        sums[v] += sum;
        sums[V + v] += product;
      }
    });
  }
  merge_row_lanes(layout, sums, [](float(&mine)[2 * V], const float(&other)[2 * V]) {
#pragma unroll
    for (int w = 0; w < 2 * V; ++w) mine[w] += other[w];
  });
  store_partials<T>(layout, place, sums, partials);
}

/// Two sums over a channel's partials, in its first lane. Where `moments`, of the deviations from
/// the pivot and of their squares: in double, no digits that matter cancel.
template <typename T, bool moments>
NF_DEVICE void add_partials(const BatchNormLayout& layout, const float* partials,
                            std::int32_t channel, double& first, double& second) {
  NF_SHARED(double, firsts, [kFinishThreads]);
  NF_SHARED(double, seconds, [kFinishThreads]);
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t lane = thread / kFinishChannels;
  const std::int32_t items = channel < layout.channels ? layout.splits << layout.repeats_log2 : 0;
  first = second = 0;
#pragma unroll 4
  for (std::int32_t item = lane; item < items; item += kFinishLanes) {
    const std::int32_t split = item >> layout.repeats_log2;
    const std::int32_t repeat = item - (split << layout.repeats_log2);
    const std::int32_t at = channel + repeat * layout.channels;
    const Vec<float, 2> partial =
        load_vec<2>(partials + 2 * (std::int64_t{split} * layout.period + at));
    if constexpr (moments) {
      std::int64_t rows = rows_of(layout, at / kVec<T>) - split * layout.rows_per_split;
      rows = rows < layout.rows_per_split ? rows : layout.rows_per_split;
      const double mean = partial.v[0];
      const double sum = static_cast<double>(rows > 0 ? rows : 0) * mean;
      first += sum;
      second += partial.v[1] + sum * mean;
    } else {
      first += partial.v[0];
      second += partial.v[1];
    }
  }
  firsts[thread] = first;
  seconds[thread] = second;
  for (std::int32_t half = kFinishLanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane >= half) continue;
    first += firsts[thread + half * kFinishChannels];
    second += seconds[thread + half * kFinishChannels];
    firsts[thread] = first;
    seconds[thread] = second;
  }
}

struct BatchNormStatistics {
  double rows, eps, momentum;
  float* running_mean;
  float* running_var;
  float* save_mean;
  float* save_invstd;
};

/// Loads the partials.
template <typename T>
NF_KERNEL(kFinishThreads)
batch_norm_finish_statistics_kernel(BatchNormLayout layout, const float* partials, const T* x,
                                    BatchNormStatistics to) {
  const std::int32_t channel = static_cast<std::int32_t>(blockIdx.x) * kFinishChannels +
                               static_cast<std::int32_t>(threadIdx.x) % kFinishChannels;
  double sum, squares;
  add_partials<T, true>(layout, partials, channel, sum, squares);
  if (threadIdx.x >= kFinishChannels || channel >= layout.channels) return;
  const double pivot = to_float(x[channel]);
  for (std::int32_t i = 0; i < layout.tail; ++i) {
    if (tail_channel(layout, i) != channel) continue;
    const double d = to_float(x[layout.tail_begin + i]) - pivot;
    sum += d;
    squares += d * d;
  }
  const double deviation = sum / to.rows;
  squares -= sum * deviation;
  squares = squares < 0 ? 0 : squares;
  const double mean = pivot + deviation;
  to.save_mean[channel] = static_cast<float>(mean);
  to.save_invstd[channel] = static_cast<float>(1 / sqrt(squares / to.rows + to.eps));
  if (to.rows == 1) return;
  to.running_mean[channel] =
      static_cast<float>((1 - to.momentum) * to.running_mean[channel] + to.momentum * mean);
  to.running_var[channel] = static_cast<float>((1 - to.momentum) * to.running_var[channel] +
                                               to.momentum * squares / (to.rows - 1));
}

/// Where the sums go: dgamma, dbeta, and what the input's gradient is made with.
struct BatchNormSums {
  double rows;
  float* dgamma;
  float* dbeta;
  bool accumulate;
  float* offset;
  float* slope;
};

/// Loads the partials.
template <typename T>
NF_KERNEL(kFinishThreads)
batch_norm_finish_gradients_kernel(BatchNormLayout layout, const float* partials,
                                   BatchNormScaling by, BatchNormUpstream<T> from,
                                   BatchNormSums to) {
  const std::int32_t channel = static_cast<std::int32_t>(blockIdx.x) * kFinishChannels +
                               static_cast<std::int32_t>(threadIdx.x) % kFinishChannels;
  double sum, product;
  add_partials<T, false>(layout, partials, channel, sum, product);
  if (threadIdx.x >= kFinishChannels || channel >= layout.channels) return;
  BatchNormChannels<1> scaling;
  load_scaling(layout, by, channel, scaling);
  for (std::int32_t i = 0; i < layout.tail; ++i) {
    if (tail_channel(layout, i) != channel) continue;
    Vec<T, 1> x[1], gradient[1];
    load_gradient(from, by, scaling, layout.tail_begin + i, 0, x, gradient);
    const float g = to_float(gradient[0].v[0]);
    sum += g;
    product += static_cast<double>(g) * (to_float(x[0].v[0]) - scaling.mean[0]);
  }
  const double invstd = by.spread[channel], scale = by.gamma[channel] * invstd;
  to.offset[channel] = static_cast<float>(scale * sum / to.rows);
  to.slope[channel] = static_cast<float>(scale * invstd * invstd * product / to.rows);
  const auto dgamma = static_cast<float>(product * invstd);
  const auto dbeta = static_cast<float>(sum);
  to.dgamma[channel] = to.accumulate ? to.dgamma[channel] + dgamma : dgamma;
  to.dbeta[channel] = to.accumulate ? to.dbeta[channel] + dbeta : dbeta;
}

}  // namespace nf::NF_TARGET
