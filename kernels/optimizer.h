// Updates of the parameters and the norm of their gradients, many tensors in one launch.
//
// All tensors are f32; the arrays that list them are in host memory and read before a launcher
// returns. Accesses are of 16 bytes where all pointers of a tensor are aligned to that, else one by
// one. Tensors of one call must not overlap.
#pragma once

#include <cstdint>

#include "kernels/stream.h"
#include "kernels/update_scalars.h"

namespace nf::NF_TARGET {

struct SgdTensor {
  float* w = nullptr;
  const float* grad = nullptr;
  float* momentum = nullptr;  ///< null without momentum
  std::int64_t size = 0;
};

struct SgdOptions {
  double learning_rate = 0;
  double momentum = 0;
  double weight_decay = 0;  ///< added to the gradient
  bool nesterov = false;
  bool first = false;     ///< the momentum buffers are not read but become the gradients
  UpdateSource source{};  ///< with scalars: in place of learning_rate
};

/// g = grad + weight_decay * w; v = momentum * v + g;
/// w -= learning_rate * (nesterov ? g + momentum * v : v). Without a buffer v is g, and there must
/// be no momentum.
/// Must move w twice, grad once, and the buffer twice (once where `first`). Moves that.
void sgd(Stream stream, const SgdTensor* tensors, std::int64_t count, const SgdOptions& options);

struct AdamWTensor {
  float* w = nullptr;
  const float* grad = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  std::int64_t size = 0;
};

struct AdamWOptions {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< w loses learning_rate * weight_decay of itself
  std::int64_t step = 1;    ///< counted from 1
  UpdateSource source{};    ///< with scalars: in place of learning_rate, weight_decay and step
};

/// Must move w, m and v twice and grad once, and does.
void adamw(Stream stream, const AdamWTensor* tensors, std::int64_t count,
           const AdamWOptions& options);

struct GradientTensor {
  float* grad = nullptr;
  std::int64_t size = 0;
};

/// Bytes of the workspace of gradient_norm, aligned to 8: 8 for every 4096 elements or part of
/// them; 0 is never the answer.
std::int64_t gradient_norm_workspace(const GradientTensor* tensors, std::int64_t count);

/// norm (1): the square root of the sum of squares over all tensors, summed in f64: squares do not
/// overflow. 0 without tensors.
/// Must move the gradients once. Moves that and the workspace twice.
void gradient_norm(Stream stream, const GradientTensor* tensors, std::int64_t count, float* norm,
                   void* workspace);

/// Multiplies all gradients by min(1, max_norm / (norm + 1e-6)), NaN where the norm is; `norm` (1)
/// is in device memory.
/// Must move the gradients twice, or not at all where the factor is 1. Moves that.
void clip_gradients(Stream stream, const GradientTensor* tensors, std::int64_t count,
                    const float* norm, float max_norm);

/// flag (1) becomes 0 where an element is infinite or NaN, and stays what it was otherwise.
/// Must move the gradients once, and does.
void gradients_finite(Stream stream, const GradientTensor* tensors, std::int64_t count,
                      std::int32_t* flag);

}  // namespace nf::NF_TARGET
