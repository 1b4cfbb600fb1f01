// Depthwise convolutions are kernels of our own; the library has the others.
#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"
#include "kernels/depthwise_conv2d.h"

namespace nf::NF_TARGET {
namespace {

DepthwiseProblem depthwise_problem(const Conv2dProblem& p) {
  return {.n = p.n,
          .h = p.h,
          .w = p.w,
          .c = p.c,
          .kh = p.kh,
          .kw = p.kw,
          .stride = p.stride,
          .padding = p.padding,
          .out_h = p.out_h(),
          .out_w = p.out_w()};
}

}  // namespace

std::int64_t GpuBackend::conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                          GradMode mode) const {
  if (!problem.depthwise()) return library_conv2d_workspace(problem.plain(), pass, mode);
  return pass == Pass::backward_weight
             ? depthwise_backward_weight_workspace(depthwise_problem(problem))
             : 0;
}

void GpuBackend::conv2d_forward(const Conv2dProblem& problem, ConstView x, ConstView w,
                                ConstView bias, ConstView residual, View y, Workspace workspace) {
  if (!problem.depthwise()) {
    check_workspace("conv2d", workspace,
                    conv2d_workspace(problem, Pass::forward, GradMode::overwrite));
    library_conv2d_forward(problem.plain(), x, w, y, workspace);
    if (bias) add_bias(bias, y, problem.activation, residual);
    return;
  }
  const bool bias_later = problem.fused();
  with_storage("conv2d", problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    depthwise_forward(stream(), depthwise_problem(problem), elements<T>("conv2d", x),
                      elements<T>("conv2d", w), bias_later ? nullptr : elements<T>("conv2d", bias),
                      elements<T>("conv2d", y));
  });
  if (bias_later) add_bias(bias, y, problem.activation, residual);
}

void GpuBackend::conv2d_backward_input(const Conv2dProblem& problem, ConstView dy, ConstView w,
                                       View dx, GradMode mode, Workspace workspace) {
  constexpr std::string_view op = "conv2d_backward_input";
  if (!problem.depthwise()) {
    check_workspace(op, workspace, conv2d_workspace(problem, Pass::backward_input, mode));
    return library_conv2d_backward_input(problem, dy, w, dx, mode, workspace);
  }
  with_storage(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    depthwise_backward_input(stream(), depthwise_problem(problem), elements<T>(op, dy),
                             elements<T>(op, w), elements<T>(op, dx), accumulates(mode));
  });
}

void GpuBackend::conv2d_backward_weight(const Conv2dProblem& problem, ConstView x, ConstView dy,
                                        View dw, GradMode mode, Workspace workspace) {
  constexpr std::string_view op = "conv2d_backward_weight";
  check_workspace(op, workspace, conv2d_workspace(problem, Pass::backward_weight, mode));
  if (!problem.depthwise())
    return library_conv2d_backward_weight(problem, x, dy, dw, mode, workspace);
  with_storage(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    depthwise_backward_weight(stream(), depthwise_problem(problem), elements<T>(op, x),
                              elements<T>(op, dy), elements<T>(op, dw), accumulates(mode),
                              workspace.data);
  });
}

void GpuBackend::linear_forward(const LinearProblem& problem, ConstView x, ConstView w,
                                ConstView bias, View y, Workspace workspace) {
  check_workspace("linear", workspace,
                  linear_workspace(problem, Pass::forward, GradMode::overwrite));
  library_linear_forward(problem, x, w, y, workspace);
  if (bias) add_bias(bias, y);
}

}  // namespace nf::NF_TARGET
