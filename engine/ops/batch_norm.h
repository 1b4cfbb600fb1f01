// Batch normalisation over all but the last dimension, fused with what follows it.
// Ioffe and Szegedy, "Batch normalization", ICML 2015.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

struct BatchNormOptions {
  /// Batch statistics (and running ones updated, where a channel has more than one value), or
  /// running statistics.
  bool training = true;
  double eps = 1e-5;
  double momentum = 0.1;
  Activation activation = Activation::none;
};

/// The affine parameters and running statistics, each (C).
struct BatchNormState {
  Tensor gamma, beta, running_mean, running_var;
};

/// activation(gamma * (x - mean) / sqrt(var + eps) + beta + residual), residual of x's shape or
/// empty. In training the backward keeps x and the batch statistics; the activation's mask is
/// computed again from them, only with a residual the output is kept too. Training on one value per
/// channel gives activation(beta + residual) and leaves the running statistics alone, where PyTorch
/// refuses: the last batch of an epoch may be a single image. In evaluation nothing is
/// recorded: a tape that wants a gradient through it is an Error.
/// Throws Error for shapes that don't fit, OutOfBudget.
Tensor batch_norm(Tape* tape, const Tensor& x, const Tensor& residual, BatchNormState& state,
                  const BatchNormOptions& options = {});

/// Makes one convolution of a convolution with weights w (C, …) and `bias` (C; empty: none) and the
/// batch norm behind it, in evaluation. In place: w becomes the weights and state.beta the bias, so
/// that nothing is allocated; the rest of the state is needed no more. No gradient.
/// Throws Error for shapes that don't fit or types other than f32 (f64 where the device has it).
void batch_norm_fold(Tensor& w, const Tensor& bias, BatchNormState& state, double eps = 1e-5);

}  // namespace nf
