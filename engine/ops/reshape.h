// The same elements under another shape.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// A view, no copy. Throws Error when the number of elements differs.
Tensor reshape(Tape* tape, const Tensor& x, const Shape& shape);
/// (N, …) -> (N, product of the rest), in NHWC order.
Tensor flatten(Tape* tape, const Tensor& x);

}  // namespace nf
