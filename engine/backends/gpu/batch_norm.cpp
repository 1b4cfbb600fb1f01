#include "kernels/batch_norm.h"

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf::NF_TARGET {
namespace {

BatchNormOptions options_of(const BatchNormProblem& problem) {
  return {.rows = problem.rows,
          .channels = problem.channels,
          .activate = problem.activation != Activation::none,
          .bound = bound_of(problem.activation),
          .eps = problem.eps,
          .momentum = problem.momentum};
}

}  // namespace

std::int64_t GpuBackend::batch_norm_workspace(const BatchNormProblem& problem) const {
  return NF_TARGET::batch_norm_workspace(problem.rows, problem.channels);
}

void GpuBackend::batch_norm_forward_train(const BatchNormProblem& problem, ConstView x,
                                          ConstView residual, ConstView gamma, ConstView beta,
                                          View running_mean, View running_var, View y,
                                          View save_mean, View save_invstd, Workspace workspace) {
  constexpr std::string_view op = "batch_norm";
  check_workspace(op, workspace, batch_norm_workspace(problem));
  with_storage(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::batch_norm_forward_train(
        stream(), options_of(problem), elements<T>(op, x), elements<T>(op, residual),
        elements<float>(op, gamma), elements<float>(op, beta), elements<float>(op, running_mean),
        elements<float>(op, running_var), elements<T>(op, y), elements<float>(op, save_mean),
        elements<float>(op, save_invstd), workspace.data);
  });
}

void GpuBackend::batch_norm_forward_eval(const BatchNormProblem& problem, ConstView x,
                                         ConstView residual, ConstView gamma, ConstView beta,
                                         ConstView running_mean, ConstView running_var, View y) {
  constexpr std::string_view op = "batch_norm";
  with_storage(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::batch_norm_forward_eval(stream(), options_of(problem), elements<T>(op, x),
                                       elements<T>(op, residual), elements<float>(op, gamma),
                                       elements<float>(op, beta), elements<float>(op, running_mean),
                                       elements<float>(op, running_var), elements<T>(op, y));
  });
}

void GpuBackend::batch_norm_backward(const BatchNormProblem& problem, ConstView x, ConstView y,
                                     ConstView dy, ConstView gamma, ConstView beta,
                                     ConstView save_mean, ConstView save_invstd, View dx,
                                     View dresidual, View dgamma, View dbeta, GradMode mode,
                                     Workspace workspace) {
  constexpr std::string_view op = "batch_norm_backward";
  check_workspace(op, workspace, batch_norm_workspace(problem));
  with_storage(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::batch_norm_backward(
        stream(), options_of(problem), elements<T>(op, x), elements<T>(op, y), elements<T>(op, dy),
        elements<float>(op, gamma), elements<float>(op, beta), elements<float>(op, save_mean),
        elements<float>(op, save_invstd), elements<T>(op, dx), elements<T>(op, dresidual),
        elements<float>(op, dgamma), elements<float>(op, dbeta), accumulates(mode), workspace.data);
  });
}

void GpuBackend::batch_norm_fold(double eps, ConstView gamma, ConstView beta,
                                 ConstView running_mean, ConstView running_var, ConstView w,
                                 ConstView bias, View folded_w, View folded_bias) {
  constexpr std::string_view op = "batch_norm_fold";
  const std::int64_t channels = gamma.numel();
  NF_TARGET::batch_norm_fold(stream(), elements<float>(op, gamma), elements<float>(op, beta),
                             elements<float>(op, running_mean), elements<float>(op, running_var),
                             eps, elements<float>(op, w), elements<float>(op, bias),
                             elements<float>(op, folded_w), elements<float>(op, folded_bias),
                             channels, channels == 0 ? 0 : w.numel() / channels);
}

}  // namespace nf::NF_TARGET
