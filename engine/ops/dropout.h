// Dropout whose mask is computed again in the backward pass: nothing is kept.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// x * keep / (1 - p) where element i is kept with probability 1 - p, decided by philox(key, i).
/// p = 0 returns x itself. Throws Error unless 0 <= p < 1.
Tensor dropout(Tape* tape, const Tensor& x, double p, PhiloxKey key);

}  // namespace nf
