// Products with one number.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// alpha * x. alpha = 1 returns x itself. Throws Error unless alpha is finite.
Tensor scale(Tape* tape, const Tensor& x, double alpha);

/// x *= alpha in its own memory, which no tape records: a tape that saved x refuses it afterwards.
/// Throws Error for the result of a recorded operator, whose gradient would not know.
void scale_in_place(Tensor& x, double alpha);

}  // namespace nf
