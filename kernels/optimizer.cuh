// Kernels over many tensors: block b takes chunk b of all their chunks.
#pragma once

#include "kernels/element.h"
#include "kernels/optimizer.h"

namespace nf::NF_TARGET::optimizer {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr std::int64_t kChunk = 4096;  // a multiple of 4 keeps chunks aligned
inline constexpr int kFloats = kVec<float>;
inline constexpr int kMostTensors = 64;

/// By value a kernel's parameter, which has 4 KiB. first_chunk[count] is the number of chunks.
template <typename Tensor>
struct TensorList {
  Tensor tensors[kMostTensors];
  std::int32_t first_chunk[kMostTensors + 1];
  std::int32_t count;
};

template <typename... Pointers>
NF_DEVICE bool can_vectorise(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

NF_DEVICE bool vectorised(const SgdTensor& t) { return can_vectorise(t.w, t.grad, t.momentum); }
NF_DEVICE bool vectorised(const AdamWTensor& t) { return can_vectorise(t.w, t.grad, t.m, t.v); }
NF_DEVICE bool vectorised(const GradientTensor& t) { return can_vectorise(t.grad); }

/// The tensor whose chunk this block takes.
template <typename Tensor>
NF_DEVICE int tensor_of_block(const TensorList<Tensor>& list) {
  int low = 0, high = list.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (list.first_chunk[middle] <= static_cast<std::int32_t>(blockIdx.x))
      low = middle;
    else
      high = middle;
  }
  return low;
}

template <int N>
struct Width {
  static constexpr int value = N;
};

/// Calls visit(tensor, i, Width) for what this thread has of the block's chunk: elements i to
/// i + Width::value - 1.
template <typename Tensor, typename Visit>
NF_DEVICE void for_chunk(const TensorList<Tensor>& list, const Visit& visit) {
  const int index = tensor_of_block(list);
  const Tensor& tensor = list.tensors[index];
  const std::int64_t begin =
      (std::int64_t{blockIdx.x} - std::int64_t{list.first_chunk[index]}) * kChunk;
  const std::int64_t left = tensor.size - begin;
  const int size = static_cast<int>(left < kChunk ? left : kChunk);
  const int vectors = vectorised(tensor) ? size / kFloats : 0;
  const auto thread = static_cast<int>(threadIdx.x);
#pragma unroll 2
  for (int i = thread; i < vectors; i += kThreads)
    visit(tensor, begin + i * kFloats, Width<kFloats>{});
  for (int i = vectors * kFloats + thread; i < size; i += kThreads)
    visit(tensor, begin + i, Width<1>{});
}

NF_DEVICE bool finite(const float* value) {
  return value == nullptr || *value - *value == 0.0F;  // 0 but for an infinity or NaN
}

/// Whether to update at all; `scalars` become those in device memory where there are some.
NF_DEVICE bool prepare(const UpdateSource& source, UpdateScalars& scalars) {
  if (source.scalars != nullptr) scalars = *source.scalars;
  return finite(source.loss) && finite(source.norm);
}

struct SgdRule {
  float momentum, decay;
  bool nesterov, first;
};

NF_KERNEL(kThreads)
sgd_kernel(TensorList<SgdTensor> list, SgdRule rule, UpdateScalars scalars, UpdateSource source) {
  if (!prepare(source, scalars)) return;
  for_chunk(list, [&](const SgdTensor& t, std::int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    const bool buffered = t.momentum != nullptr;
    Vec<float, N> w = load_vec<N>(t.w + i), v{};
    const Vec<float, N> grad = load_vec<N>(t.grad + i);
    if (buffered && !rule.first) v = load_vec<N>(t.momentum + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = grad.v[k] + rule.decay * w.v[k];
      v.v[k] = buffered && !rule.first ? rule.momentum * v.v[k] + g : g;
      const bool ahead = buffered && rule.nesterov;
      w.v[k] -= scalars.rate * (ahead ? g + rule.momentum * v.v[k] : v.v[k]);
    }
    store_vec(t.w + i, w);
    if (buffered) store_vec(t.momentum + i, v);
  });
}

struct AdamWRule {
  float beta1, rest1, beta2, rest2;
  float eps;
};

NF_KERNEL(kThreads)
adamw_kernel(TensorList<AdamWTensor> list, AdamWRule rule, UpdateScalars scalars,
             UpdateSource source) {
  if (!prepare(source, scalars)) return;
  for_chunk(list, [&](const AdamWTensor& t, std::int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    Vec<float, N> w = load_vec<N>(t.w + i), m = load_vec<N>(t.m + i), v = load_vec<N>(t.v + i);
    const Vec<float, N> grad = load_vec<N>(t.grad + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = grad.v[k];
      m.v[k] = rule.beta1 * m.v[k] + rule.rest1 * g;
      v.v[k] = rule.beta2 * v.v[k] + rule.rest2 * g * g;
      w.v[k] =
          w.v[k] * scalars.keep - scalars.rate * m.v[k] / (sqrtf(v.v[k]) * scalars.root + rule.eps);
    }
    store_vec(t.w + i, w);
    store_vec(t.m + i, m);
    store_vec(t.v + i, v);
  });
}

/// The sum over a block of whole warps, for thread 0.
NF_DEVICE double sum_of_block(double value) {
  NF_SHARED(double, of_warp, [kWarps]);
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffU, value, offset);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += of_warp[warp];
  return sum;
}

/// partials[block] = sum of the squares of its chunk.
NF_KERNEL(kThreads) squares_kernel(TensorList<GradientTensor> list, double* partials) {
  double sum = 0;
  for_chunk(list, [&](const GradientTensor& t, std::int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    const Vec<float, N> grad = load_vec<N>(t.grad + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += double{grad.v[k]} * double{grad.v[k]};
  });
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// One block.
NF_KERNEL(kThreads) norm_kernel(const double* partials, std::int64_t count, float* norm) {
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) sum += partials[i];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(sum));
}

NF_KERNEL(kThreads)
clip_kernel(TensorList<GradientTensor> list, const float* norm, float max_norm) {
  const float factor = max_norm / (*norm + 1e-6F);
  if (factor >= 1.0F) return;
  for_chunk(list, [&](const GradientTensor& t, std::int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    Vec<float, N> grad = load_vec<N>(t.grad + i);
#pragma unroll
    for (int k = 0; k < N; ++k) grad.v[k] *= factor;
    store_vec(t.grad + i, grad);
  });
}

NF_KERNEL(kThreads) finite_kernel(TensorList<GradientTensor> list, std::int32_t* flag) {
  bool finite = true;
  for_chunk(list, [&](const GradientTensor& t, std::int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    const Vec<float, N> grad = load_vec<N>(t.grad + i);
    // x - x is 0 but for an infinity or NaN.
#pragma unroll
    for (int k = 0; k < N; ++k) finite = finite && grad.v[k] - grad.v[k] == 0.0F;
  });
  if (__syncthreads_or(!finite) && threadIdx.x == 0) atomicExch(flag, 0);
}

}  // namespace nf::NF_TARGET::optimizer
