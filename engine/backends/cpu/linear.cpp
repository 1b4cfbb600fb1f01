#include <algorithm>
#include <array>
#include <type_traits>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/matrix_product.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

// Rows of a product that are worth a thread: some hundred thousand multiplications.
std::int64_t product_grain(std::int64_t inner, std::int64_t columns) {
  return (std::int64_t{1} << 17) / std::max<std::int64_t>(inner * columns, 1) + 1;
}

bool uses_onednn(OneDnn* onednn, const LinearProblem& problem, Pass pass, GradMode mode) {
  return onednn != nullptr && problem.dtype == DType::f32 &&
         onednn->has_linear(problem, pass, mode);
}

}  // namespace

std::int64_t CpuBackend::linear_workspace(const LinearProblem& problem, Pass pass,
                                          GradMode mode) const {
  with_real("linear", problem.dtype, [](auto) {});
  if (!uses_onednn(onednn_.get(), problem, pass, mode)) return 0;
  return onednn_->linear_workspace(problem, pass, mode);
}

void CpuBackend::linear_forward(const LinearProblem& problem, ConstView x, ConstView w,
                                ConstView bias, View y, Workspace workspace) {
  constexpr std::string_view op = "linear";
  const Pass pass = Pass::forward;
  const GradMode mode = GradMode::overwrite;
  check_workspace(op, workspace, linear_workspace(problem, pass, mode));
  with_real(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>(op, x);
    const T* weight = elements<T>(op, w);
    const T* added = elements<T>(op, bias);
    T* out = elements<T>(op, y);
    if constexpr (std::is_same_v<T, float>)
      if (uses_onednn(onednn_.get(), problem, pass, mode))
        return onednn_->linear(problem, pass, mode,
                               {.x = in, .w = weight, .bias = added, .out = out}, workspace);
    const auto [n, i, o] = std::array{problem.n, problem.i, problem.o};
    parallel_for(threads_, n, product_grain(i, o), [&](std::int64_t begin, std::int64_t end, int) {
      const MatrixView<T> result{out + begin * o, end - begin, o};
      matrix_product<T>({in + begin * i, end - begin, i}, {weight, o, i}, Factors::right_transposed,
                        mode, result);
      if (added != nullptr) add_to_rows(added, result);
    });
  });
}

void CpuBackend::linear_backward_input(const LinearProblem& problem, ConstView dy, ConstView w,
                                       View dx, GradMode mode, Workspace workspace) {
  constexpr std::string_view op = "linear_backward_input";
  const Pass pass = Pass::backward_input;
  check_workspace(op, workspace, linear_workspace(problem, pass, mode));
  with_real(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* upstream = elements<T>(op, dy);
    const T* weight = elements<T>(op, w);
    T* out = elements<T>(op, dx);
    if constexpr (std::is_same_v<T, float>)
      if (uses_onednn(onednn_.get(), problem, pass, mode))
        return onednn_->linear(problem, pass, mode, {.w = weight, .dy = upstream, .out = out},
                               workspace);
    const auto [n, i, o] = std::array{problem.n, problem.i, problem.o};
    parallel_for(threads_, n, product_grain(o, i), [&](std::int64_t begin, std::int64_t end, int) {
      matrix_product<T>({upstream + begin * o, end - begin, o}, {weight, o, i}, Factors::plain,
                        mode, {out + begin * i, end - begin, i});
    });
  });
}

void CpuBackend::linear_backward_weight(const LinearProblem& problem, ConstView x, ConstView dy,
                                        View dw, GradMode mode, Workspace workspace) {
  constexpr std::string_view op = "linear_backward_weight";
  const Pass pass = Pass::backward_weight;
  check_workspace(op, workspace, linear_workspace(problem, pass, mode));
  with_real(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>(op, x);
    const T* upstream = elements<T>(op, dy);
    T* out = elements<T>(op, dw);
    if constexpr (std::is_same_v<T, float>)
      if (uses_onednn(onednn_.get(), problem, pass, mode))
        return onednn_->linear(problem, pass, mode, {.x = in, .dy = upstream, .out = out},
                               workspace);
    const auto [n, i, o] = std::array{problem.n, problem.i, problem.o};
    parallel_for(threads_, o, product_grain(n, i), [&](std::int64_t begin, std::int64_t end, int) {
      matrix_product<T>({upstream + begin, n, end - begin, o}, {in, n, i}, Factors::left_transposed,
                        mode, {out + begin * i, end - begin, i});
    });
  });
}

}  // namespace nf::cpu
