// Batch norm over (rows, channels): an NHWC tensor with N, H and W taken together. Then + residual
// where given, then the activation.
//
// x, residual, y and their gradients are stored as T; templates exist for float, bf16, f16. What
// is per channel is float. `workspace` is aligned to 16 bytes and forgotten between calls. Where a
// pointer to T is not aligned to 16 bytes, elements are accessed one by one: the same bytes of
// memory, but kVec<T> times the requests to the cache. Every channel count has 16-byte accesses.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

struct BatchNormOptions {
  std::int64_t rows = 0, channels = 0;
  bool activate = false;  ///< y = min(max(…, 0), bound)
  float bound = std::numeric_limits<float>::infinity();
  double eps = 1e-5;
  double momentum = 0.1;  ///< running = (1 - momentum) * running + momentum * batch
};

/// Bytes of the workspace of batch_norm_forward_train and batch_norm_backward, whatever T: at most
/// 2 MiB and 8 bytes per channel where there are no more than 2^15 channels; 0 is never the answer.
std::int64_t batch_norm_workspace(std::int64_t rows, std::int64_t channels);

/// Statistics of the batch. Writes its mean and 1 / sqrt(var + eps) for the backward and updates
/// the running statistics (the variance with the unbiased one), which a single row leaves alone.
/// Must move x twice, y once and `residual` (may be null) once. Moves that and the workspace twice.
template <typename T>
void batch_norm_forward_train(Stream stream, const BatchNormOptions& options, const T* x,
                              const T* residual, const float* gamma, const float* beta,
                              float* running_mean, float* running_var, T* y, float* save_mean,
                              float* save_invstd, void* workspace);

/// The running statistics instead of the batch's; y may be x.
/// Must move x, y and `residual` (may be null) once, and does.
template <typename T>
void batch_norm_forward_eval(Stream stream, const BatchNormOptions& options, const T* x,
                             const T* residual, const float* gamma, const float* beta,
                             const float* running_mean, const float* running_var, T* y);

/// Gradient of batch_norm_forward_train. `y` is its output, needed where there was a residual and
/// an activation, else null: y is then computed again from x, to the same bits. The activation
/// lets pass where 0 < y < bound, y as it is stored. `dresidual` is null without a residual. dx may
/// be dy, and so may dresidual where dx is not. dgamma and dbeta are added to where `accumulate`.
/// Must move x, dy and y (where given) twice, dx and dresidual once. Moves that and the workspace
/// twice.
template <typename T>
void batch_norm_backward(Stream stream, const BatchNormOptions& options, const T* x, const T* y,
                         const T* dy, const float* gamma, const float* beta, const float* save_mean,
                         const float* save_invstd, T* dx, T* dresidual, float* dgamma, float* dbeta,
                         bool accumulate, void* workspace);

/// Folds a batch norm in evaluation mode into the convolution before it: with w (o, k) and `bias`
/// (o; null: zeros), folded_w = w * scale and folded_bias = (bias - mean) * scale + beta, where
/// scale = gamma / sqrt(var + eps). folded_w may be w, folded_bias may be bias
/// or beta.
/// Must move w and folded_w once, and does.
void batch_norm_fold(Stream stream, const float* gamma, const float* beta,
                     const float* running_mean, const float* running_var, double eps,
                     const float* w, const float* bias, float* folded_w, float* folded_bias,
                     std::int64_t o, std::int64_t k);

}  // namespace nf::NF_TARGET
