// Another storage type.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// x as f32, f64, f16 or bf16, rounded to nearest even; x itself where it has that type already.
/// The gradient is cast back. Throws Error for other types, OutOfBudget.
Tensor cast(Tape* tape, const Tensor& x, DType dtype);

}  // namespace nf
