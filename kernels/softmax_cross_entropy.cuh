// Kernels of the softmax cross entropy: one for the loss, the gradient, or both.
#pragma once

#include "kernels/element.h"
#include "kernels/softmax_cross_entropy.h"

namespace nf::NF_TARGET::softmax_ce {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;

/// A block's share of the results.
struct Partial {
  double loss;
  std::int64_t correct;
};

struct Rows {
  std::int64_t n;
  std::int32_t c;
  std::int32_t vectors;  ///< of kVec<T> in a row; 0 where rows are not aligned
  int lanes_log2;        ///< threads to a row: 2^0 to 2^5, or the whole block
  float base, peak;      ///< the target beside and at the label
  double smoothing;
  bool accumulate;
};

/// The row's elements, as vectors and what is left.
struct Row {
  std::int32_t vectors, c;
};

/// Calls visit(first, vector) for the elements of a row that thread `me` of `lanes` has.
template <typename T, typename Visit>
NF_DEVICE void for_row(const Row& row, const T* x, int me, int lanes, const Visit& visit) {
#pragma unroll 1  // a row has few vectors per thread, and registers are short
  for (int i = me; i < row.vectors; i += lanes)
    visit(i * kVec<T>, load_vec<kVec<T>>(x + i * kVec<T>));
  for (int i = row.vectors * kVec<T> + me; i < row.c; i += lanes) visit(i, Vec<T, 1>{{x[i]}});
}

struct Max {
  NF_DEVICE float operator()(float a, float b) const { return b > a ? b : a; }
};
struct Sum {
  template <typename Value>
  NF_DEVICE Value operator()(Value a, Value b) const {
    return a + b;
  }
};

/// Joins groups of 2^log2 neighbouring lanes of a warp, all of which get the result.
template <typename Value, typename Join>
NF_DEVICE Value join_lanes(Value value, int log2, Join join) {
  for (int offset = (1 << log2) / 2; offset > 0; offset /= 2)
    value = join(value, __shfl_xor_sync(0xffffffffU, value, offset));
  return value;
}

template <typename Value, typename Join>
NF_DEVICE Value join_warps(const Value* of_warp, Join join) {
  Value value = of_warp[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) value = join(value, of_warp[warp]);
  return value;
}

/// The loss where `partials` is given, one per block; the gradient where dlogits is, of `dloss`
/// or, where that is null, of the mean loss.
template <typename T>
NF_KERNEL(kThreads)
softmax_cross_entropy_kernel(Rows rows, const T* logits, const std::int32_t* labels,
                             const float* dloss, T* dlogits, Partial* partials) {
  NF_SHARED(float, warp_max, [kWarps]);
  NF_SHARED(float, warp_sum, [kWarps]);
  NF_SHARED(float, warp_shift, [kWarps]);
  NF_SHARED(int, warp_earlier, [kWarps]);
  const auto thread = static_cast<int>(threadIdx.x);
  const int lanes = 1 << rows.lanes_log2, me = thread & (lanes - 1);
  const bool block_row = lanes > 32;
  const int join_log2 = block_row ? 5 : rows.lanes_log2;
  const bool smooth = partials != nullptr && rows.smoothing > 0;
  const int row_slots = kThreads >> rows.lanes_log2;
  double loss = 0;
  std::int64_t correct = 0;
  for (std::int64_t first = std::int64_t{blockIdx.x} * row_slots; first < rows.n;
       first += std::int64_t{gridDim.x} * row_slots) {
    // Behind the last row threads go along with an empty one: joins take whole warps.
    const std::int64_t row = first + (thread >> rows.lanes_log2);
    const bool inside = row < rows.n;
    const Row here{inside ? rows.vectors : 0, inside ? rows.c : 0};
    const T* x = logits + (inside ? row * rows.c : 0);

    float max = __uint_as_float(0xff800000U);
    for_row(here, x, me, lanes, [&](int, const auto& vector) {
      for (const T value : vector.v) max = Max()(max, to_float(value));
    });
    max = join_lanes(max, join_log2, Max());
    if (block_row) {
      if (thread % 32 == 0) warp_max[thread / 32] = max;
      __syncthreads();
      max = join_warps(warp_max, Max());
    }

    const std::int32_t label = inside ? labels[row] : 0;
    const bool known = label >= 0 && label < here.c;
    const float nan = __uint_as_float(0x7fffffffU);
    const float at_label = known ? to_float(x[label]) : nan;
    float sum = 0, shift = 0;
    int earlier = 0;  // logits before the label's that are as large as the largest
    for_row(here, x, me, lanes, [&](int i, const auto& vector) {
      for (const T stored : vector.v) {
        const float value = to_float(stored);
        sum += expf(value - max);
        if (smooth) shift += value - max;
        if (i++ < label && value == max) earlier = 1;
      }
    });
    sum = join_lanes(sum, join_log2, Sum());
    if (smooth) shift = join_lanes(shift, join_log2, Sum());
    if (partials != nullptr) earlier = join_lanes(earlier, join_log2, Sum());
    if (block_row) {
      if (thread % 32 == 0) {
        warp_sum[thread / 32] = sum;
        warp_shift[thread / 32] = shift;
        warp_earlier[thread / 32] = earlier;
      }
      // Also ends all reading of the row, which the gradient may replace.
      __syncthreads();
      sum = join_warps(warp_sum, Sum());
      shift = join_warps(warp_shift, Sum());
      earlier = join_warps(warp_earlier, Sum());
    } else {
      __syncwarp();
    }

    if (inside && me == 0 && partials != nullptr) {
      double picked = (1.0 - rows.smoothing) * (double{at_label} - double{max});
      if (smooth) picked += rows.smoothing * double{shift} / static_cast<double>(rows.c);
      loss += double{logf(sum)} - picked;
      // The largest of a row that holds a NaN is nobody's prediction.
      if (at_label == max && earlier == 0 && sum == sum) ++correct;
    }
    if (dlogits == nullptr || !inside) continue;
    const float upstream = dloss == nullptr ? 1.0F : *dloss;
    const float scale = known ? upstream / static_cast<float>(rows.n) : nan;
    const float inverse = 1.0F / sum;
    T* dx = dlogits + row * rows.c;
    for_row(here, x, me, lanes, [&](int begin, const auto& vector) {
      constexpr int kElements = static_cast<int>(sizeof(vector) / sizeof(T));
      Vec<T, kElements> out{};
      if (rows.accumulate) out = load_vec<kElements>(dx + begin);
#pragma unroll
      for (int v = 0; v < kElements; ++v) {
        const float target = begin + v == label ? rows.peak : rows.base;
        const float g = scale * (expf(to_float(vector.v[v]) - max) * inverse - target);
        out.v[v] = from_float<T>(rows.accumulate ? to_float(out.v[v]) + g : g);
      }
      store_vec(dx + begin, out);
    });
  }
  if (partials == nullptr) return;
  NF_SHARED(double, warp_loss, [kWarps]);
  NF_SHARED(std::int64_t, warp_correct, [kWarps]);
  loss = join_lanes(loss, 5, Sum());
  correct = join_lanes(correct, 5, Sum());
  if (thread % 32 == 0) {
    warp_loss[thread / 32] = loss;
    warp_correct[thread / 32] = correct;
  }
  __syncthreads();
  if (thread == 0)
    partials[blockIdx.x] = {join_warps(warp_loss, Sum()), join_warps(warp_correct, Sum())};
}

/// One block. loss = sum of the partials / n.
NF_KERNEL(kThreads)
softmax_cross_entropy_finish_kernel(const Partial* partials, int count, std::int64_t n, float* loss,
                                    std::int32_t* correct) {
  NF_SHARED(double, warp_loss, [kWarps]);
  NF_SHARED(std::int64_t, warp_correct, [kWarps]);
  const auto thread = static_cast<int>(threadIdx.x);
  double sum = 0;
  std::int64_t hits = 0;
  for (int i = thread; i < count; i += kThreads) {
    sum += partials[i].loss;
    hits += partials[i].correct;
  }
  sum = join_lanes(sum, 5, Sum());
  hits = join_lanes(hits, 5, Sum());
  if (thread % 32 == 0) {
    warp_loss[thread / 32] = sum;
    warp_correct[thread / 32] = hits;
  }
  __syncthreads();
  if (thread > 0) return;
  *loss = static_cast<float>(join_warps(warp_loss, Sum()) / static_cast<double>(n));
  *correct = static_cast<std::int32_t>(join_warps(warp_correct, Sum()));
}

}  // namespace nf::NF_TARGET::softmax_ce
