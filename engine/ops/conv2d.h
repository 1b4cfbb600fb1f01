// Two-dimensional convolution (cross-correlation), grouped and depthwise included.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;
};

/// x (N, H, W, C), w (O, KH, KW, C / groups), bias (O) or empty; returns
/// (N, (H + 2 padding - KH) / stride + 1, …, O). The input's gradient is computed only when wanted.
/// Throws Error for shapes that don't fit, OutOfBudget.
Tensor conv2d(Tape* tape, const Tensor& x, const Tensor& w, const Tensor& bias,
              const Conv2dOptions& options = {});

/// activation(conv2d(x, w, bias) + residual) in one operator without a backward: what a convolution
/// and the batch norm behind it are in inference once batch_norm_fold has made them one. residual
/// of the output's shape or empty. Throws Error like conv2d, and without a bias.
Tensor conv2d_fused(const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                    Activation activation, const Conv2dOptions& options = {});

/// Weights that no longer change, elements in the order that suits the device; shape as ever.
struct ConstantWeights {
  Tensor& values;        ///< (O, KH, KW, C / groups), elements elsewhere where layout is not 0
  std::int64_t& layout;  ///< of the values, 0 at first; see Backend::conv2d_weight_layout
};

/// The same with weights that are first brought, in place, into the layout in which the device
/// reads them with the least work, and stay there: later calls of the same problem reorder nothing.
/// Layouts that need more room than the plain one are left to each call.
Tensor conv2d_fused(const Tensor& x, ConstantWeights w, const Tensor& bias, const Tensor& residual,
                    Activation activation, const Conv2dOptions& options = {});

/// The problem these arguments pose. Throws Error like conv2d.
Conv2dProblem conv2d_problem(const Shape& x, const Shape& w, DType dtype,
                             const Conv2dOptions& options);

}  // namespace nf
