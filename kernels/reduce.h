// Reductions, by row, by column and over all, in f32; templates exist for float, bf16, f16. No
// floating-point atomics: the same bits each time.
//
// Sums are trees: a sum of n differs from the exact one by `depth` * 2^-24 * sum |x| at most, where
// depth, the roundings that an element goes through, is 33 + n / 2^16 for reduce_rows, 47 + n /
// 2^26 for reduce_all, and 64 + rows * columns / 2^22, but for the rounding to T, for column_sums.
//
// No operand needs an alignment beyond its type's, but a workspace is aligned to 16 bytes and
// forgotten between calls. NaN propagates through min and max. Nothing reduced: sums are 0, means
// NaN, min inf, max -inf.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

enum class Reduction : std::uint8_t { sum, mean, min, max, sum_of_squares };

/// y (rows) from x (rows, columns).
/// Must move x and y once, and does. Few long rows leave most of a GPU idle: see reduce_all.
template <typename T>
void reduce_rows(Stream stream, Reduction reduction, const T* x, std::int64_t rows,
                 std::int64_t columns, float* y);

/// Bytes of reduce_all's workspace, at most 4 KiB; 0 is never the answer.
std::int64_t reduce_all_workspace(std::int64_t n);

/// y (1) from x (n).
/// Must move x once. Moves that and the workspace twice.
template <typename T>
void reduce_all(Stream stream, Reduction reduction, const T* x, std::int64_t n, float* y,
                void* workspace);

/// Bytes of column_sums' workspace, whatever T: at most 512 KiB or, if that is more, 32 per column;
/// 0 is never the answer.
std::int64_t column_sums_workspace(std::int64_t rows, std::int64_t columns);

/// y (columns): the sums over the rows of x (rows, columns), rounded to T once; added to y where
/// `accumulate`. The gradient of a bias. Every column count has 16-byte accesses where x is aligned
/// to 16 bytes.
/// Must move x once, y once, and old y where it accumulates. Moves that and the workspace twice.
template <typename T>
void column_sums(Stream stream, const T* x, std::int64_t rows, std::int64_t columns, T* y,
                 bool accumulate, void* workspace);

/// Sets flag (1) to 0 where x (n) holds an infinity or NaN, else leaves it.
/// Must move x once, and does.
template <typename T>
void all_finite(Stream stream, const T* x, std::int64_t n, std::int32_t* flag);

}  // namespace nf::NF_TARGET
