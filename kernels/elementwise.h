// Element-wise kernels over flat arrays. Computed in f32, rounded to storage once; templates exist
// for float, bf16, f16.
//
// No operand needs an alignment beyond its type's. Accesses have 16 bytes where all operands are
// equally far from a 16-byte boundary, else they go one by one: the same bytes, more requests.
// "Must move" is what the maths needs; each kernel moves exactly that.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

/// y = value converted to T on the host, which its range must hold. Also for std::uint8_t,
/// std::int32_t, std::int64_t and double.
/// Must move y once, and does.
template <typename T>
void fill(Stream stream, T* y, std::int64_t n, double value);

/// y = x, any bits; they may not overlap.
/// Must move x and y once, and does, in the widest accesses that x and y can have together.
void copy(Stream stream, const void* x, void* y, std::int64_t bytes);

/// y = x in another type: each of the six pairs of float, bf16, f16. Overflow gives infinity.
/// Must move x and y once, and does.
template <typename From, typename To>
void cast(Stream stream, const From* x, To* y, std::int64_t n);

/// out = a + b; out may be a or b.
/// Must move a, b and out once, and does.
template <typename T>
void add(Stream stream, const T* a, const T* b, T* out, std::int64_t n);

/// y += alpha * x in one fused step; x may be y.
/// Must move x once and y twice, and does.
template <typename T>
void axpy(Stream stream, float alpha, const T* x, T* y, std::int64_t n);

/// y = alpha * x; y may be x.
/// Must move x and y once, and does.
template <typename T>
void scale(Stream stream, float alpha, const T* x, T* y, std::int64_t n);

/// y = min(max(x, 0), bound), bound rounded to T; NaN stays NaN. y may be x.
/// Must move x and y once, and does.
template <typename T>
void relu_forward(Stream stream, const T* x, T* y, std::int64_t n, float bound);

/// dx = dy where 0 < y < bound (rounded to T), else 0; added to dx where `accumulate`. dx may be
/// dy. A NaN in y lets nothing pass.
/// Must move y, dy and dx once, and old dx where it accumulates; does.
template <typename T>
void relu_backward(Stream stream, const T* y, const T* dy, T* dx, std::int64_t n, float bound,
                   bool accumulate);

/// What follows a bias in the same pass.
template <typename T>
struct AfterBias {
  const T* residual = nullptr;  ///< (rows, channels), added; null: none
  bool activate = false;        ///< cut to 0 and `bound`, as relu_forward does
  float bound = 0;
};

/// y (rows, channels) += bias (channels), channels below 2^31, then what is to follow. y has
/// 16-byte accesses whatever the channel count.
/// Must move y twice, the residual and bias once. Moves that, with bias from the cache.
template <typename T>
void add_bias(Stream stream, const T* bias, T* y, std::int64_t rows, std::int64_t channels,
              const AfterBias<T>& then = {});

/// y (rows, columns) = factor * x (rows) in each column, added to y where `accumulate`: the
/// gradient of a row's sum. y has 16-byte accesses whatever the column count.
/// Must move x and y once, and old y where it accumulates. Moves that, with x from the cache.
template <typename T>
void spread_rows(Stream stream, float factor, const float* x, T* y, std::int64_t rows,
                 std::int64_t columns, bool accumulate);

}  // namespace nf::NF_TARGET
