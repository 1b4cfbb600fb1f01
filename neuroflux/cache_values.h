// Values as an activation cache stores them.
#pragma once

#include <cstddef>
#include <span>

#include "engine/dtype.h"

namespace nf {

/// Floats to and from a cache's dtype, rounding to nearest even. `stored` holds values.size()
/// elements of `dtype`.
void encode_values(std::span<const float> values, DType dtype, std::byte* stored);
void decode_values(const std::byte* stored, DType dtype, std::span<float> values);

}  // namespace nf
