#include "kernels/softmax_cross_entropy.cuh"

#include <algorithm>
#include <string>

namespace nf::NF_TARGET {
namespace {

using namespace softmax_ce;

// Eight blocks for each of the 128 or so multiprocessors of a large GPU.
constexpr std::int64_t kMostBlocks = 1024;
constexpr std::int64_t kMostClasses = 1 << 30;  // so that steps past the end stay in 32 bits
constexpr std::int64_t kWarpRow = 128;  // accesses that a row has at most for a warp to take it

template <typename T>
Rows make_rows(std::int64_t n, std::int64_t c, double smoothing, bool accumulate, const T* logits,
               const T* dlogits) {
  if (c > kMostClasses)
    throw KernelError("softmax_cross_entropy: at most 2^30 classes, got " + std::to_string(c));
  const bool vectors = c % kVec<T> == 0 && aligned16(logits, dlogits);
  const std::int64_t accesses = vectors ? c / kVec<T> : c;
  int lanes_log2 = 0;
  while (lanes_log2 < 5 && (std::int64_t{1} << lanes_log2) < accesses) ++lanes_log2;
  static_assert(kThreads == 1 << 8);
  const double base = smoothing / static_cast<double>(std::max<std::int64_t>(c, 1));
  return {.n = n,
          .c = static_cast<std::int32_t>(c),
          .vectors = static_cast<std::int32_t>(vectors ? accesses : 0),
          .lanes_log2 = accesses > kWarpRow ? 8 : lanes_log2,
          .base = static_cast<float>(base),
          .peak = static_cast<float>(1.0 - smoothing + base),
          .smoothing = smoothing,
          .accumulate = accumulate};
}

std::int64_t blocks_for(const Rows& rows) {
  const std::int64_t row_slots = kThreads >> rows.lanes_log2;
  return std::min((rows.n + row_slots - 1) / row_slots, kMostBlocks);
}

template <typename T>
void run(Stream stream, const Rows& rows, const T* logits, const std::int32_t* labels, float* loss,
         std::int32_t* correct, T* dlogits, void* workspace) {
  auto* partials = static_cast<Partial*>(workspace);
  const std::int64_t blocks = blocks_for(rows);
  if (blocks > 0)
    launch("softmax_cross_entropy", softmax_cross_entropy_kernel<T>, {blocks}, {kThreads}, 0,
           stream, rows, logits, labels, nullptr, dlogits, partials);
  launch("softmax_cross_entropy_finish", softmax_cross_entropy_finish_kernel, {1}, {kThreads}, 0,
         stream, partials, static_cast<int>(blocks), rows.n, loss, correct);
}

}  // namespace

std::int64_t softmax_cross_entropy_workspace(std::int64_t n, std::int64_t) {
  return std::clamp<std::int64_t>(n, 1, kMostBlocks) * static_cast<std::int64_t>(sizeof(Partial));
}

template <typename T>
void softmax_cross_entropy_forward(Stream stream, const T* logits, const std::int32_t* labels,
                                   std::int64_t n, std::int64_t c, double smoothing, float* loss,
                                   std::int32_t* correct, void* workspace) {
  T* const none = nullptr;
  run(stream, make_rows(n, c, smoothing, false, logits, none), logits, labels, loss, correct, none,
      workspace);
}

template <typename T>
void softmax_cross_entropy_backward(Stream stream, const T* logits, const std::int32_t* labels,
                                    std::int64_t n, std::int64_t c, double smoothing,
                                    const float* dloss, T* dlogits, bool accumulate) {
  if (n == 0 || c == 0) return;
  const Rows rows = make_rows(n, c, smoothing, accumulate, logits, dlogits);
  launch("softmax_cross_entropy_backward", softmax_cross_entropy_kernel<T>, {blocks_for(rows)},
         {kThreads}, 0, stream, rows, logits, labels, dloss, dlogits, nullptr);
}

template <typename T>
void softmax_cross_entropy_forward_backward(Stream stream, const T* logits,
                                            const std::int32_t* labels, std::int64_t n,
                                            std::int64_t c, double smoothing, float* loss,
                                            std::int32_t* correct, T* dlogits, void* workspace) {
  run(stream, make_rows(n, c, smoothing, false, logits, dlogits), logits, labels, loss, correct,
      dlogits, workspace);
}

#define NF_STORED(T)                                                                               \
  template void softmax_cross_entropy_forward(Stream, const T*, const std::int32_t*, std::int64_t, \
                                              std::int64_t, double, float*, std::int32_t*, void*); \
  template void softmax_cross_entropy_backward(Stream, const T*, const std::int32_t*,              \
                                               std::int64_t, std::int64_t, double, const float*,   \
                                               T*, bool);                                          \
  template void softmax_cross_entropy_forward_backward(Stream, const T*, const std::int32_t*,      \
                                                       std::int64_t, std::int64_t, double, float*, \
                                                       std::int32_t*, T*, void*)
NF_STORED(float);
NF_STORED(bf16);
NF_STORED(f16);
#undef NF_STORED

}  // namespace nf::NF_TARGET
