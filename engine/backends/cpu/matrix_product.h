// Matrix products by Eigen, compiled once for all that multiplies.
#pragma once

#include <cstdint>

#include "engine/backend.h"

namespace nf::cpu {

/// A row-major matrix in memory of somebody else's.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t stride = columns;  ///< elements from one row to the next
};

enum class Factors : std::uint8_t { plain, left_transposed, right_transposed };

/// out = a b, or out += a b, with one of the factors transposed first. The shapes must fit and out
/// must not overlap a or b. For T float and double.
template <typename T>
void matrix_product(MatrixView<const T> a, MatrixView<const T> b, Factors factors, GradMode mode,
                    MatrixView<T> out);

/// Adds `row`, of as many elements as `out` has columns, to each of its rows.
template <typename T>
void add_to_rows(const T* row, MatrixView<T> out);

}  // namespace nf::cpu
