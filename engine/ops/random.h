// Random numbers made on the device: the same bits on every device, whatever the threads.
#pragma once

#include "engine/tensor.h"

namespace nf {

/// Uniform numbers from `low` to `high`: element i is low + u (high - low), computed in f32 in one
/// fused step and rounded to `dtype`, u in [0, 1) the word i % 4 of philox(key, i / 4, stream).
/// Rounding may reach `high`. Throws Error unless both are finite in f32 and low <= high,
/// OutOfBudget.
Tensor uniform(const ContextPtr& context, const Shape& shape, double low, double high,
               RandomAddress at, DType dtype = DType::f32, Category category = Category::input);

/// Normal numbers: element i is mean + z stddev, as above, z one of the four of
/// normal4(philox(key, i / 4, stream)) (kernels/normal.h), none beyond 5.8. Throws Error unless
/// both are finite in f32 and stddev >= 0, OutOfBudget.
Tensor normal(const ContextPtr& context, const Shape& shape, double mean, double stddev,
              RandomAddress at, DType dtype = DType::f32, Category category = Category::input);

/// The same into the memory of `y`; counts as an in-place edit.
void fill_uniform(Tensor& y, double low, double high, RandomAddress at);
void fill_normal(Tensor& y, double mean, double stddev, RandomAddress at);

}  // namespace nf
