// Element-wise sum.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// a + b of equal shapes. Throws Error where they differ.
Tensor add(Tape* tape, const Tensor& a, const Tensor& b);

}  // namespace nf
