// Affine map of the last dimension.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// x (N, I), w (O, I), bias (O) or empty; returns x w^T + bias, (N, O).
/// Throws Error for shapes that don't fit, OutOfBudget.
Tensor linear(Tape* tape, const Tensor& x, const Tensor& w, const Tensor& bias);

}  // namespace nf
