// Mean cross entropy of softmax over rows of logits (n, c), its gradient and the rows hit.
//
// With smoothing s a row's target is s / c everywhere and 1 - s more at its label. Logits and
// their gradient are stored as T; templates exist for float, bf16, f16; arithmetic is in f32, the
// losses are summed in f64. c is at most 2^30. `workspace` is aligned to 8 bytes and forgotten
// between calls.
//
// A label outside [0, c) cannot be reported from here: its row counts as not hit, the row's
// gradient is NaN, and so is the loss.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

/// Bytes of the workspace of softmax_cross_entropy_forward and …_forward_backward: at most 16 KiB;
/// 0 is never the answer.
std::int64_t softmax_cross_entropy_workspace(std::int64_t n, std::int64_t c);

/// loss (1): the mean over the rows. correct (1): rows whose first largest logit is the label's,
/// none whose softmax is NaN. Without rows, the loss is NaN.
/// Must move the logits once. Moves that where a row stays in the cache: it is loaded twice.
template <typename T>
void softmax_cross_entropy_forward(Stream stream, const T* logits, const std::int32_t* labels,
                                   std::int64_t n, std::int64_t c, double smoothing, float* loss,
                                   std::int32_t* correct, void* workspace);

/// dlogits = dloss * (softmax - target) / n, added where `accumulate`. dlogits may be logits where
/// it is not.
/// Must move logits and dlogits once, and old dlogits where it accumulates. Moves that where a row
/// stays in the cache: its logits are loaded three times.
template <typename T>
void softmax_cross_entropy_backward(Stream stream, const T* logits, const std::int32_t* labels,
                                    std::int64_t n, std::int64_t c, double smoothing,
                                    const float* dloss, T* dlogits, bool accumulate);

/// Both at once. dlogits is the gradient of the mean loss; it may be logits.
/// Must move logits and dlogits once. Moves that where a row stays in the cache: its logits are
/// loaded three times.
template <typename T>
void softmax_cross_entropy_forward_backward(Stream stream, const T* logits,
                                            const std::int32_t* labels, std::int64_t n,
                                            std::int64_t c, double smoothing, float* loss,
                                            std::int32_t* correct, T* dlogits, void* workspace);

}  // namespace nf::NF_TARGET
