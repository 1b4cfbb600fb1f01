// Kernels of pooling. A thread computes one cell for one vector of V channels, whichever way: the
// backward passes gather from the windows that cover a cell, so that nothing is written twice.
#pragma once

#include "kernels/divider.h"
#include "kernels/pool2d.h"

namespace nf::NF_TARGET {

inline constexpr int kPoolThreads = 256;

/// Rows or columns of a pooling.
struct PoolAxis {
  std::int32_t in, out, kernel, stride, padding;
  Divider by_stride, by_in, by_out;
  bool adaptive;     // windows of in / out, which need not be whole, not of kernel and stride
  bool padding_too;  // averages count the padding
};

/// One launch: `cells` output (forward) or input (backward) cells, vectors counted.
struct Pooling {
  PoolAxis rows, columns;
  std::int64_t channels, cells;
  Divider by_vectors, by_columns, by_rows;  // take the index of a cell apart
};

struct PoolCell {
  std::int32_t image, row, column;
  std::int64_t channel;
};

struct Span {
  std::int32_t begin, end;
};

template <int V>
NF_DEVICE PoolCell pool_cell(const Pooling& p, std::int64_t index) {
  auto rest = static_cast<std::int32_t>(index);
  PoolCell cell;
  cell.channel = static_cast<std::int64_t>(take_remainder(rest, p.by_vectors)) * V;
  cell.column = take_remainder(rest, p.by_columns);
  cell.row = take_remainder(rest, p.by_rows);
  cell.image = rest;
  return cell;
}

/// Inputs of output `o`, without the padding.
NF_DEVICE Span window(const PoolAxis& axis, std::int32_t o) {
  if (axis.adaptive) {
    const std::int32_t begin = o * axis.in;
    return {quotient(begin, axis.by_out), quotient(begin + axis.in + axis.out - 1, axis.by_out)};
  }
  const std::int32_t start = o * axis.stride - axis.padding;
  const std::int32_t end = start + axis.kernel;
  return {start > 0 ? start : 0, end < axis.in ? end : axis.in};
}

/// Outputs whose windows cover input `i`.
NF_DEVICE Span windows_over(const PoolAxis& axis, std::int32_t i) {
  if (axis.adaptive) {
    const std::int32_t begin = i * axis.out;
    return {quotient(begin, axis.by_in), quotient(begin + axis.out + axis.in - 1, axis.by_in)};
  }
  const std::int32_t first = i + axis.padding - axis.kernel + 1;  // they start here or behind
  const std::int32_t end = quotient(i + axis.padding, axis.by_stride) + 1;
  return {first > 0 ? quotient(first + axis.stride - 1, axis.by_stride) : 0,
          end < axis.out ? end : axis.out};
}

/// What an average over output `o` counts along this axis.
NF_DEVICE std::int32_t counted(const PoolAxis& axis, std::int32_t o) {
  if (axis.adaptive || !axis.padding_too) {
    const Span inside = window(axis, o);
    return inside.end - inside.begin;
  }
  const std::int32_t beyond = axis.in + axis.padding - (o * axis.stride - axis.padding);
  return axis.kernel < beyond ? axis.kernel : beyond;
}

/// Position in a (…, rows, columns, channels) tensor.
NF_DEVICE std::int64_t position(const Pooling& p, std::int32_t image, std::int32_t rows,
                                std::int32_t row, std::int32_t columns, std::int32_t column,
                                std::int64_t channel) {
  return ((std::int64_t{image} * rows + row) * columns + column) * p.channels + channel;
}

/// V indices, in accesses of at most 16 bytes.
template <int V, typename Index>
NF_DEVICE void load_indices(const Index* from, std::int32_t (&indices)[V]) {
  if constexpr (V == 1) {
    indices[0] = *from;
  } else {
    constexpr int kTogether = V < kVec<Index> ? V : kVec<Index>;
    for (int first = 0; first < V; first += kTogether) {
      const Vec<Index, kTogether> part = load_vec<kTogether>(from + first);
      for (int v = 0; v < kTogether; ++v) indices[first + v] = part.v[v];
    }
  }
}

template <int V, typename Index>
NF_DEVICE void store_indices(Index* to, const std::int32_t (&indices)[V]) {
  if constexpr (V == 1) {
    *to = static_cast<Index>(indices[0]);
  } else {
    constexpr int kTogether = V < kVec<Index> ? V : kVec<Index>;
    for (int first = 0; first < V; first += kTogether) {
      Vec<Index, kTogether> part;
      for (int v = 0; v < kTogether; ++v) part.v[v] = static_cast<Index>(indices[first + v]);
      store_vec(to + first, part);
    }
  }
}

/// out = sum, or out += sum, rounded once.
template <int V, typename T>
NF_DEVICE void put(T* out, const float (&sum)[V], bool accumulate) {
  Vec<T, V> result;
  if (accumulate) {
    result = load_vec<V>(out);
    for (int v = 0; v < V; ++v) result.v[v] = from_float<T>(to_float(result.v[v]) + sum[v]);
  } else {
    for (int v = 0; v < V; ++v) result.v[v] = from_float<T>(sum[v]);
  }
  store_vec(out, result);
}

/// One of `narrow` and `wide` takes the indices, or neither.
template <typename T, int V>
NF_KERNEL(kPoolThreads)
max_pool_kernel(Pooling p, const T* x, T* y, std::uint8_t* narrow, std::int32_t* wide) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kPoolThreads + threadIdx.x;
  if (index >= p.cells) return;
  const PoolCell cell = pool_cell<V>(p, index);
  const Span rows = window(p.rows, cell.row), columns = window(p.columns, cell.column);
  const std::int32_t kernel = p.rows.kernel;
  const std::int32_t top = cell.row * p.rows.stride - p.rows.padding;
  const std::int32_t left = cell.column * p.columns.stride - p.columns.padding;
  // The first cell wins over -inf even where it is -inf itself.
  const std::int32_t first = (rows.begin - top) * kernel + columns.begin - left;
  float best[V];
  std::int32_t where[V];
  for (int v = 0; v < V; ++v) {
    best[v] = __uint_as_float(0xff800000U);
    where[v] = first;
  }
  for (std::int32_t row = rows.begin; row < rows.end; ++row) {
    const T* at =
        x + position(p, cell.image, p.rows.in, row, p.columns.in, columns.begin, cell.channel);
    std::int32_t k = (row - top) * kernel + columns.begin - left;
#pragma unroll 2
    for (std::int32_t column = columns.begin; column < columns.end; ++column, ++k) {
      const Vec<T, V> values = load_vec<V>(at);
      at += p.channels;
      for (int v = 0; v < V; ++v) {
        const float value = to_float(values.v[v]);
        // Not (value <= best): larger, or a NaN; a NaN already there stays.
        if (!(value <= best[v]) && best[v] == best[v]) {
          best[v] = value;
          where[v] = k;
        }
      }
    }
  }
  const std::int64_t out = index * V;
  put(y + out, best, false);
  if (narrow != nullptr) store_indices(narrow + out, where);
  if (wide != nullptr) store_indices(wide + out, where);
}

template <typename T, int V>
NF_KERNEL(kPoolThreads)
max_pool_backward_kernel(Pooling p, const std::uint8_t* narrow, const std::int32_t* wide,
                         const T* dy, T* dx, bool accumulate) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kPoolThreads + threadIdx.x;
  if (index >= p.cells) return;
  const PoolCell cell = pool_cell<V>(p, index);
  const Span rows = windows_over(p.rows, cell.row), columns = windows_over(p.columns, cell.column);
  float sum[V] = {};
  for (std::int32_t oh = rows.begin; oh < rows.end; ++oh) {
    std::int64_t at =
        position(p, cell.image, p.rows.out, oh, p.columns.out, columns.begin, cell.channel);
    const std::int32_t row_k = (cell.row - oh * p.rows.stride + p.rows.padding) * p.rows.kernel +
                               cell.column + p.columns.padding;
    for (std::int32_t ow = columns.begin; ow < columns.end; ++ow) {
      const std::int32_t k = row_k - ow * p.columns.stride;
      const Vec<T, V> upstream = load_vec<V>(dy + at);
      std::int32_t where[V];
      if (narrow != nullptr)
        load_indices(narrow + at, where);
      else
        load_indices(wide + at, where);
      for (int v = 0; v < V; ++v) sum[v] += where[v] == k ? to_float(upstream.v[v]) : 0.0F;
      at += p.channels;
    }
  }
  put(dx + index * V, sum, accumulate);
}

/// 2^lane_bits threads share each window's cells; their sums meet in shared memory.
template <typename T, int V>
NF_KERNEL(kPoolThreads)
average_kernel(Pooling p, int lane_bits, const T* x, T* y) {
  const int lanes = 1 << lane_bits, slots = kPoolThreads >> lane_bits;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread / slots;
  const std::int64_t index = std::int64_t{blockIdx.x} * slots + thread % slots;
  const bool inside = index < p.cells;
  float sum[V] = {};
  float factor = 0;
  if (inside) {
    const PoolCell cell = pool_cell<V>(p, index);
    const Span rows = window(p.rows, cell.row), columns = window(p.columns, cell.column);
    const std::int32_t width = columns.end - columns.begin;
    const T* from =
        x + position(p, cell.image, p.rows.in, 0, p.columns.in, columns.begin, cell.channel);
    const std::int64_t row_stride = p.columns.in * p.channels;
    if (width > 0) {
      // Cell `lane` of the window, then every lanes-th one behind it.
      std::int32_t row = rows.begin, column = 0;
      std::int32_t row_step = width == 1 ? 1 : 0, column_step = 1 - row_step;
      if (lanes > 1) {
        row += lane / width;
        column = lane % width;
        row_step = lanes / width;
        column_step = lanes % width;
      }
#pragma unroll 4
      while (row < rows.end) {
        const Vec<T, V> values = load_vec<V>(from + row * row_stride + column * p.channels);
        for (int v = 0; v < V; ++v) sum[v] += to_float(values.v[v]);
        row += row_step;
        column += column_step;
        if (column >= width) {
          column -= width;
          ++row;
        }
      }
    }
    factor = 1.0F / (static_cast<float>(counted(p.rows, cell.row)) *
                     static_cast<float>(counted(p.columns, cell.column)));
  }
  if (lanes > 1) {
    NF_DYNAMIC_SHARED(float, sums);  // (V, threads)
    for (int v = 0; v < V; ++v) sums[v * kPoolThreads + thread] = sum[v];
    for (int half = lanes / 2; half > 0; half /= 2) {
      __syncthreads();
      if (lane >= half) continue;
      for (int v = 0; v < V; ++v) {
        sum[v] += sums[v * kPoolThreads + thread + half * slots];
        sums[v * kPoolThreads + thread] = sum[v];
      }
    }
  }
  if (!inside || lane > 0) return;
  for (int v = 0; v < V; ++v) sum[v] *= factor;
  put(y + index * V, sum, false);
}

template <typename T, int V>
NF_KERNEL(kPoolThreads)
average_backward_kernel(Pooling p, const T* dy, T* dx, bool accumulate) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kPoolThreads + threadIdx.x;
  if (index >= p.cells) return;
  const PoolCell cell = pool_cell<V>(p, index);
  const Span rows = windows_over(p.rows, cell.row), columns = windows_over(p.columns, cell.column);
  float sum[V] = {};
  for (std::int32_t oh = rows.begin; oh < rows.end; ++oh) {
    const T* from =
        dy + position(p, cell.image, p.rows.out, oh, p.columns.out, columns.begin, cell.channel);
    const auto height = static_cast<float>(counted(p.rows, oh));
    for (std::int32_t ow = columns.begin; ow < columns.end; ++ow) {
      const float factor = 1.0F / (height * static_cast<float>(counted(p.columns, ow)));
      const Vec<T, V> upstream = load_vec<V>(from);
      for (int v = 0; v < V; ++v) sum[v] += to_float(upstream.v[v]) * factor;
      from += p.channels;
    }
  }
  put(dx + index * V, sum, accumulate);
}

}  // namespace nf::NF_TARGET
