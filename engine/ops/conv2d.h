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

/// The problem these arguments pose. Throws Error like conv2d.
Conv2dProblem conv2d_problem(const Shape& x, const Shape& w, DType dtype,
                             const Conv2dOptions& options);

}  // namespace nf
