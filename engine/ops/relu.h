// Rectifiers.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// max(x, 0); the backward keeps the output.
Tensor relu(Tape* tape, const Tensor& x);
/// min(max(x, 0), 6); the backward keeps the output.
Tensor relu6(Tape* tape, const Tensor& x);

}  // namespace nf
