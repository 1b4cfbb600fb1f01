// Random numbers on the device: the bits of kernels/philox.h and kernels/normal.h, whatever the
// device, the launch or the order. Element i of an array has word i % 4 of draw i / 4.
//
// No operand needs an alignment beyond its type's; with 16 bytes accesses are of 16 bytes.
// Templates exist for float, bf16, f16; what is rounded to them is computed in f32.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/philox.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

/// y = x / (1 - p) where uniform01(bits of philox(key, i / 4, 0)) >= p, else 0; added to y where
/// `accumulate`. y may be x. p in [0, 1).
/// Must move x and y once, and old y where it accumulates; does.
template <typename T>
void dropout(Stream stream, double p, PhiloxKey key, const T* x, T* y, std::int64_t n,
             bool accumulate);

/// y = low + u (high - low), fused, u = uniform01(bits of philox(key, i / 4, stream_number)).
/// Must move y once, and does.
template <typename T>
void fill_uniform(Stream stream, std::uint64_t key, std::uint64_t stream_number, T* y,
                  std::int64_t n, float low, float high);

/// y = mean + z std, fused, z the number of normal4(philox(key, i / 4, stream_number)).
/// Must move y once, and does.
template <typename T>
void fill_normal(Stream stream, std::uint64_t key, std::uint64_t stream_number, T* y,
                 std::int64_t n, float mean, float std);

}  // namespace nf::NF_TARGET
