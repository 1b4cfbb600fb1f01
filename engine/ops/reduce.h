// Reductions of a whole tensor to one number, or of each sample to one.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

/// What is reduced to one number: all of the tensor, or each row, which is all that lies behind one
/// index of the first dimension.
enum class Per : std::uint8_t { tensor, row };

/// Sum and mean, (1) or (rows): f32 for inputs of f32 and 16 bits, f64 for f64. Nothing is kept for
/// the backward pass. On the CPU summed in f64 with compensation, on GPUs in trees of f32
/// (kernels/reduce.h); the same bits each time. Throw Error for an input without elements or, per
/// row, without dimensions.
Tensor sum(Tape* tape, const Tensor& x, Per per = Per::tensor);
Tensor mean(Tape* tape, const Tensor& x, Per per = Per::tensor);

/// As above, without a gradient: throw Error for the result of a recorded operator that is not
/// detached. NaN propagates through both extremes.
Tensor min(const Tensor& x, Per per = Per::tensor);
Tensor max(const Tensor& x, Per per = Per::tensor);
Tensor sum_of_squares(const Tensor& x, Per per = Per::tensor);

/// Whether x holds neither an infinity nor a NaN. Waits for the device. On the meta device, which
/// holds no values, true.
bool all_finite(const Tensor& x);

}  // namespace nf
