// The classification loss.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

struct CrossEntropy {
  Tensor loss;  ///< (1): mean over the batch; f32 for logits of 16 bits
  /// (1) i32: rows whose first largest logit is the label's, none whose softmax is NaN.
  Tensor correct;
};

/// logits (N, C), labels (N) i32 in 0..C-1. With label smoothing s the target is
/// (1 - s) onehot + s / C.
/// Throws Error for shapes that don't fit, a label out of range (the device cuda gives a NaN loss
/// instead) or s outside [0, 1), OutOfBudget.
CrossEntropy softmax_cross_entropy(Tape* tape, const Tensor& logits, const Tensor& labels,
                                   double label_smoothing = 0.0);

/// The same for a loss that training starts its backward from. The gradient comes with the loss, in
/// one pass over the logits, and the tape keeps it in their place; with a seed other than none the
/// backward multiplies it, which in 16 bits rounds twice. Where the tape wants no gradient this is
/// softmax_cross_entropy.
CrossEntropy softmax_cross_entropy_with_gradient(Tape* tape, const Tensor& logits,
                                                 const Tensor& labels,
                                                 double label_smoothing = 0.0);

}  // namespace nf
