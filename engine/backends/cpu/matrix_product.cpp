#include "engine/backends/cpu/matrix_product.h"

#include <Eigen/Core>
#include <type_traits>

namespace nf::cpu {
namespace {

template <typename T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <typename T>
auto eigen(const MatrixView<T>& m) {
  using Dense = Matrix<std::remove_const_t<T>>;
  using Map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Dense, Dense>, 0,
                         Eigen::OuterStride<>>;
  return Map(m.data, m.rows, m.columns, Eigen::OuterStride<>(m.stride));
}

template <typename T, typename Product>
void store(const Product& product, GradMode mode, const MatrixView<T>& out) {
  auto result = eigen(out);
  if (mode == GradMode::overwrite)
    result.noalias() = product;
  else
    result.noalias() += product;
}

}  // namespace

template <typename T>
void matrix_product(MatrixView<const T> a, MatrixView<const T> b, Factors factors, GradMode mode,
                    MatrixView<T> out) {
  switch (factors) {
    case Factors::plain:
      return store(eigen(a) * eigen(b), mode, out);
    case Factors::left_transposed:
      return store(eigen(a).transpose() * eigen(b), mode, out);
    case Factors::right_transposed:
      return store(eigen(a) * eigen(b).transpose(), mode, out);
  }
}

template <typename T>
void add_to_rows(const T* row, MatrixView<T> out) {
  eigen(out).rowwise() += Eigen::Map<const Eigen::RowVector<T, Eigen::Dynamic>>(row, out.columns);
}

#define NF_INSTANTIATE(T)                                                                   \
  template void matrix_product(MatrixView<const T>, MatrixView<const T>, Factors, GradMode, \
                               MatrixView<T>);                                              \
  template void add_to_rows(const T*, MatrixView<T>);
NF_INSTANTIATE(float)
NF_INSTANTIATE(double)
#undef NF_INSTANTIATE

}  // namespace nf::cpu
