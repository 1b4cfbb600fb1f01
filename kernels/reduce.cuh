// Kernels of reductions. A thread folds the vectors that it has under way in a tree, adds the
// results up in runs of kRun, and the runs; threads are joined in a tree again. So an element goes
// through few roundings, however many there are.
#pragma once

#include "kernels/reduce.h"

namespace nf::NF_TARGET::reduction {

inline constexpr int kReduceThreads = 256;
inline constexpr int kReduceWarps = kReduceThreads / 32;
/// Vectors that a thread has under way at a time.
inline constexpr int kAtOnce = 4;
inline constexpr int kRun = 16;

NF_DEVICE float identity(Reduction reduction) {
  if (reduction == Reduction::min) return __uint_as_float(0x7f800000U);
  return reduction == Reduction::max ? __uint_as_float(0xff800000U) : 0.0F;
}

struct Sum {
  NF_DEVICE float operator()(float a, float b) const { return a + b; }
};
// A NaN on either side wins.
struct Min {
  NF_DEVICE float operator()(float a, float b) const { return b < a || b != b ? b : a; }
};
struct Max {
  NF_DEVICE float operator()(float a, float b) const { return b > a || b != b ? b : a; }
};

/// Of what has been squared already, if it was to be.
NF_DEVICE float combine(Reduction reduction, float a, float b) {
  if (reduction == Reduction::min) return Min()(a, b);
  return reduction == Reduction::max ? Max()(a, b) : a + b;
}

template <int N, typename Join>
NF_DEVICE float tree(const float* values, Join join) {
  if constexpr (N == 1)
    return values[0];
  else
    return join(tree<N / 2>(values, join), tree<N / 2>(values + N / 2, join));
}

template <int V, typename T, typename Join>
NF_DEVICE float fold_vector(const Vec<T, V>& vector, bool squares, Join join) {
  float values[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    values[v] = to_float(vector.v[v]);
    if (squares) values[v] *= values[v];
  }
  return tree<V>(values, join);
}

template <int V, typename T, typename Join>
NF_DEVICE float fold_vectors(const Vec<T, V> (&vectors)[kAtOnce], bool squares, Join join) {
  float values[kAtOnce];
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) values[u] = fold_vector(vectors[u], squares, join);
  return tree<kAtOnce>(values, join);
}

/// One branch for all elements.
template <int V, typename T>
NF_DEVICE float fold(Reduction reduction, const Vec<T, V> (&vectors)[kAtOnce]) {
  if (reduction == Reduction::min) return fold_vectors(vectors, false, Min());
  if (reduction == Reduction::max) return fold_vectors(vectors, false, Max());
  return fold_vectors(vectors, reduction == Reduction::sum_of_squares, Sum());
}

/// Elements up to 16-byte alignment, vectors, and elements again: the scalars are head and tail.
struct Parts {
  std::int64_t head, vectors, scalars;
};

template <typename T>
NF_DEVICE Parts parts_of(const T* x, std::int64_t n) {
  constexpr int V = kVec<T>;
  const auto behind = static_cast<int>(reinterpret_cast<std::uintptr_t>(x) / sizeof(T) % V);
  const std::int64_t to_boundary = (V - behind) % V;
  const std::int64_t head = to_boundary < n ? to_boundary : n;
  const std::int64_t vectors = (n - head) / V;
  return {head, vectors, n - vectors * V};
}

template <typename T>
NF_DEVICE float scalar(const T* x, const Parts& parts, std::int64_t i) {
  return to_float(x[i < parts.head ? i : i + parts.vectors * kVec<T>]);
}

/// The thread's vectors first, first + step, …, kAtOnce of them, `otherwise` behind the last.
template <int V, typename T>
NF_DEVICE void load_vectors(const T* x, const Parts& parts, std::int64_t first, int step,
                            float otherwise, Vec<T, V> (&vectors)[kAtOnce]) {
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u) {
    const std::int64_t i = first + u * step;
    if (i < parts.vectors) {
      vectors[u] = load_vec<V>(x + parts.head + i * V);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) vectors[u].v[v] = from_float<T>(otherwise);
    }
  }
}

/// What thread `me` of `threads` has of x (n).
template <typename T>
NF_DEVICE float reduce_share(Reduction reduction, const T* x, std::int64_t n, int me, int threads) {
  const Parts parts = parts_of(x, n);
  const float nothing = identity(reduction);
  float total = nothing;
  for (std::int64_t i = me; i < parts.scalars; i += threads) {
    const float value = scalar(x, parts, i);
    total =
        combine(reduction, total, reduction == Reduction::sum_of_squares ? value * value : value);
  }
  for (std::int64_t i = me; i < parts.vectors;) {
    float run = nothing;
    for (int k = 0; k < kRun && i < parts.vectors; ++k, i += kAtOnce * threads) {
      Vec<T, kVec<T>> vectors[kAtOnce];
      load_vectors(x, parts, i, threads, nothing, vectors);
      run = combine(reduction, run, fold(reduction, vectors));
    }
    total = combine(reduction, total, run);
  }
  return total;
}

/// Joins groups of `lanes` neighbouring lanes, a power of two. The whole warp calls it.
NF_DEVICE float join_lanes(Reduction reduction, float value, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2)
    value = combine(reduction, value, __shfl_xor_sync(0xffffffffU, value, offset));
  return value;
}

/// y[row] = reduction of x[row] / divisor, `lanes` lanes to a row.
template <typename T>
NF_KERNEL(kReduceThreads)
reduce_short_rows_kernel(Reduction reduction, const T* x, std::int64_t rows, std::int64_t columns,
                         int lanes_log2, float divisor, float* y) {
  const int lanes = 1 << lanes_log2;
  const auto thread = static_cast<int>(threadIdx.x);
  const int lane = thread & (lanes - 1);
  const std::int64_t row = (std::int64_t{blockIdx.x} << (8 - lanes_log2)) + (thread >> lanes_log2);
  static_assert(kReduceThreads == 1 << 8);
  const float share = row < rows ? reduce_share(reduction, x + row * columns, columns, lane, lanes)
                                 : identity(reduction);
  const float joined = join_lanes(reduction, share, lanes);
  if (row < rows && lane == 0) y[row] = joined / divisor;
}

/// y[block] = reduction of the block's `length` elements of x (n) / divisor; the last has the rest.
template <typename T>
NF_KERNEL(kReduceThreads)
reduce_parts_kernel(Reduction reduction, const T* x, std::int64_t n, std::int64_t length,
                    float divisor, float* y) {
  NF_SHARED(float, of_warp, [kReduceWarps]);
  const auto thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32, warp = thread / 32;
  const std::int64_t begin = std::int64_t{blockIdx.x} * length;
  const std::int64_t count = n - begin < length ? n - begin : length;
  const float share = reduce_share(reduction, x + begin, count, thread, kReduceThreads);
  const float joined = join_lanes(reduction, share, 32);
  if (lane == 0) of_warp[warp] = joined;
  __syncthreads();
  if (warp != 0) return;
  const float total = join_lanes(reduction, of_warp[lane % kReduceWarps], kReduceWarps);
  if (lane == 0) y[blockIdx.x] = total / divisor;
}

/// How column sums are dealt out. A block takes 2^across_log2 neighbouring vectors of
/// rows_per_block rows, as many rows at a time as it has threads for.
struct ColumnTiles {
  std::int64_t rows, columns;  // columns: a multiple of the vector
  std::int64_t rows_per_block;
  std::int32_t across_log2;
  std::int32_t blocks_across;
};

struct ColumnPlace {
  std::int64_t column;
  std::int32_t row_block;
  int down;     // which of the block's rows that are summed at a time
  bool inside;  // the column is one of x
};

template <int V>
NF_DEVICE ColumnPlace column_place(const ColumnTiles& tiles) {
  const auto block = static_cast<std::int32_t>(blockIdx.x);
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  ColumnPlace place;
  place.row_block = block / tiles.blocks_across;
  const std::int64_t tile = block - place.row_block * tiles.blocks_across;
  const std::int32_t across = thread & ((1 << tiles.across_log2) - 1);
  place.column = ((tile << tiles.across_log2) + across) * V;
  place.down = thread >> tiles.across_log2;
  place.inside = place.column < tiles.columns;
  return place;
}

/// The sums of the block's rows of V columns, in the threads with place.down == 0. The whole block
/// calls it.
template <int V, typename T>
NF_DEVICE void sum_block(const T* x, const ColumnTiles& tiles, const ColumnPlace& place,
                         float (&sums)[V]) {
  NF_SHARED(float, of_thread, [V][kReduceThreads]);
  const int down = kReduceThreads >> tiles.across_log2;
  const std::int64_t begin = place.row_block * tiles.rows_per_block;
  const std::int64_t behind = begin + tiles.rows_per_block;
  const std::int64_t end = !place.inside ? 0 : behind < tiles.rows ? behind : tiles.rows;
#pragma unroll
  for (int v = 0; v < V; ++v) sums[v] = 0;
  std::int64_t row = begin + place.down;
  const std::int64_t step = down * tiles.columns;
  const T* from = x + row * tiles.columns + place.column;
  while (row < end) {
    float run[V] = {};
    for (int k = 0; k < kRun && row < end; ++k, row += kAtOnce * down, from += kAtOnce * step) {
      Vec<T, V> values[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        values[u] = {};
        if (row + u * down < end) values[u] = load_vec<V>(from + u * step);
      }
      static_assert(kAtOnce == 4);
#pragma unroll
      for (int v = 0; v < V; ++v)
        run[v] += (to_float(values[0].v[v]) + to_float(values[1].v[v])) +
                  (to_float(values[2].v[v]) + to_float(values[3].v[v]));
    }
#pragma unroll
    for (int v = 0; v < V; ++v) sums[v] += run[v];
  }
#pragma unroll
  for (int v = 0; v < V; ++v) of_thread[v][threadIdx.x] = sums[v];
  __syncthreads();
  for (int half = down / 2; half > 0; half /= 2) {
    if (place.down < half) {
#pragma unroll
      for (int v = 0; v < V; ++v)
        of_thread[v][threadIdx.x] += of_thread[v][threadIdx.x + (half << tiles.across_log2)];
    }
    __syncthreads();
  }
#pragma unroll
  for (int v = 0; v < V; ++v) sums[v] = of_thread[v][threadIdx.x];
}

/// partials (row blocks, columns), aligned to 16 bytes where V is not 1.
template <int V, typename T>
NF_KERNEL(kReduceThreads)
column_partials_kernel(const T* x, ColumnTiles tiles, float* partials) {
  const ColumnPlace place = column_place<V>(tiles);
  float sums[V];
  sum_block<V>(x, tiles, place, sums);
  if (place.down != 0 || !place.inside) return;
  float* to = partials + place.row_block * tiles.columns + place.column;
  constexpr int kStored = V < 4 ? V : 4;
#pragma unroll
  for (int first = 0; first < V; first += kStored) {
    Vec<float, kStored> part;
#pragma unroll
    for (int v = 0; v < kStored; ++v) part.v[v] = sums[first + v];
    store_vec(to + first, part);
  }
}

/// y (columns) = sums of `partials` (rows, columns), and of the `left` rows of x (left, columns),
/// fewer than a vector's elements, that are in none of them.
template <typename T>
NF_KERNEL(kReduceThreads)
column_totals_kernel(const float* partials, ColumnTiles tiles, const T* x, int left, T* y,
                     bool accumulate) {
  const ColumnPlace place = column_place<1>(tiles);
  float sums[1];
  sum_block<1>(partials, tiles, place, sums);
  if (place.down != 0 || !place.inside) return;
  float rest = 0;
  for (int row = 0; row < left; ++row) rest += to_float(x[row * tiles.columns + place.column]);
  const float sum = sums[0] + rest;
  y[place.column] = from_float<T>(accumulate ? to_float(y[place.column]) + sum : sum);
}

/// x - x is 0 but for an infinity or NaN.
NF_DEVICE bool is_finite(float x) { return x - x == 0.0F; }

template <typename T>
NF_KERNEL(kReduceThreads)
all_finite_kernel(const T* x, std::int64_t n, std::int32_t* flag) {
  const Parts parts = parts_of(x, n);
  const std::int64_t first = std::int64_t{blockIdx.x} * (kAtOnce * kReduceThreads) + threadIdx.x;
  Vec<T, kVec<T>> vectors[kAtOnce];
  load_vectors(x, parts, first, kReduceThreads, 0.0F, vectors);
  bool finite = true;
#pragma unroll
  for (int u = 0; u < kAtOnce; ++u)
#pragma unroll
    for (int v = 0; v < kVec<T>; ++v) finite = finite && is_finite(to_float(vectors[u].v[v]));
  if (first < parts.scalars) finite = finite && is_finite(scalar(x, parts, first));
  if (__syncthreads_or(!finite) && threadIdx.x == 0) atomicExch(flag, 0);
}

}  // namespace nf::NF_TARGET::reduction
