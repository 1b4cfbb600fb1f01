// Who computes a convolution: Winograd's path, the pointwise or the direct one where they pay, else
// oneDNN where it has more than a reference implementation, direct loops for depthwise ones, matrix
// products for the rest. What follows a convolution is done with it by Winograd's path and the
// pointwise one, and by oneDNN where it can; else it is a pass of its own.
#include <type_traits>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

// Weights that came in a layout of oneDNN's are oneDNN's to read.
bool uses_winograd(const Conv2dProblem& problem, Pass pass) {
  return problem.weight_layout == 0 && winograd_conv2d_pays(problem, pass);
}

bool uses_pointwise(const Conv2dProblem& problem, Pass pass) {
  return problem.weight_layout == 0 && pointwise_conv2d_pays(problem, pass);
}

bool uses_direct(const Conv2dProblem& problem, Pass pass) {
  return problem.weight_layout == 0 && direct_conv2d_pays(problem, pass);
}

bool uses_onednn(OneDnn* onednn, const Conv2dProblem& problem, Pass pass) {
  return onednn != nullptr && problem.dtype == DType::f32 && onednn->has_conv2d(problem, pass);
}

template <typename T, typename Fn>
void with_own_path(const Conv2dProblem& problem, int threads, Workspace workspace, const Fn& fn) {
  if (problem.depthwise())
    fn(DepthwiseConv2d<T>{problem, threads, workspace});
  else
    fn(GemmConv2d<T>{problem, threads, workspace});
}

// y = activation(y + residual), null for none.
template <typename T>
void follow(int threads, Activation activation, const T* residual, T* y, std::int64_t count) {
  const T bound = static_cast<T>(upper_bound(activation));
  with_flag(residual != nullptr, [&](auto adds) {
    with_flag(activation != Activation::none, [&](auto cuts) {
      parallel_simd(threads, count, kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) {
          const T sum = adds ? y[i] + residual[i] : y[i];
          // In this order a NaN passes through.
          const T cut = cuts && sum < T{0} ? T{0} : sum;
          y[i] = cuts && bound < cut ? bound : cut;
        }
      });
    });
  });
}

}  // namespace

std::int64_t CpuBackend::conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                          GradMode mode) const {
  with_real("conv2d", problem.dtype, [](auto) {});
  if (uses_winograd(problem, pass)) return winograd_conv2d_workspace(problem, pass, threads_);
  if (uses_pointwise(problem, pass) || uses_direct(problem, pass)) return 0;
  if (uses_onednn(onednn_.get(), problem, pass))
    return onednn_->conv2d_workspace(problem, pass, mode);
  if (problem.fused()) return conv2d_workspace(problem.plain(), pass, mode);
  return problem.depthwise() ? depthwise_conv2d_workspace(problem, pass, threads_)
                             : gemm_conv2d_workspace(problem, pass, threads_);
}

// Not where the pointwise path pays: on weights in its own layout oneDNN is a little faster.
std::int64_t CpuBackend::conv2d_weight_layout(const Conv2dProblem& problem) const {
  if (winograd_conv2d_pays(problem, Pass::forward) || direct_conv2d_beats_layouts(problem))
    return 0;
  if (uses_onednn(onednn_.get(), problem, Pass::forward))
    return onednn_->conv2d_weight_layout(problem);
  return problem.fused() ? conv2d_weight_layout(problem.plain()) : 0;
}

std::int64_t CpuBackend::conv2d_weight_bytes(const Conv2dProblem& problem,
                                             std::int64_t layout) const {
  if (layout == 0 || onednn_ == nullptr) return Backend::conv2d_weight_bytes(problem, layout);
  return onednn_->conv2d_weight_bytes(problem, layout);
}

std::int64_t CpuBackend::conv2d_reorder_workspace(const Conv2dProblem& problem,
                                                  std::int64_t layout) const {
  return onednn_ == nullptr ? 0 : onednn_->conv2d_reorder_workspace(problem, layout);
}

void CpuBackend::conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout,
                                        ConstView w, View out, Workspace workspace) {
  if (onednn_ == nullptr)
    return Backend::conv2d_reorder_weights(problem, layout, w, out, workspace);
  onednn_->conv2d_reorder_weights(problem, layout, elements<float>("conv2d", w),
                                  elements<float>("conv2d", out), workspace);
}

void CpuBackend::conv2d_forward(const Conv2dProblem& problem, ConstView x, ConstView w,
                                ConstView bias, ConstView residual, View y, Workspace workspace) {
  constexpr std::string_view op = "conv2d";
  const Pass pass = Pass::forward;
  check_workspace(op, workspace, conv2d_workspace(problem, pass, GradMode::overwrite));
  NF_CHECK(problem.weight_layout == 0 || problem.weight_layout == conv2d_weight_layout(problem),
           "conv2d: weights come in layout {}, this problem reads layout {}", problem.weight_layout,
           conv2d_weight_layout(problem));
  with_real(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>(op, x);
    const T* filters = elements<T>(op, w);
    const T* offset = elements<T>(op, bias);
    const T* added = elements<T>(op, residual);
    T* out = elements<T>(op, y);
    if constexpr (std::is_same_v<T, float>) {
      if (uses_winograd(problem, pass))
        return WinogradConv2d{problem, threads_, workspace}.forward(in, filters, offset, added,
                                                                    out);
      if (uses_pointwise(problem, pass))
        return PointwiseConv2d{problem, threads_}.forward(in, filters, offset, added, out);
      if (uses_direct(problem, pass)) {
        DirectConv2d{problem, threads_}.forward(in, filters, offset, out);
        if (problem.fused()) follow(threads_, problem.activation, added, out, y.numel());
        return;
      }
      if (uses_onednn(onednn_.get(), problem, pass))
        return onednn_->conv2d(
            problem, pass, GradMode::overwrite,
            {.x = in, .w = filters, .bias = offset, .residual = added, .out = out}, workspace);
    }
    if (problem.fused()) {
      conv2d_forward(problem.plain(), x, w, bias, {}, y, workspace);
      return follow(threads_, problem.activation, added, out, y.numel());
    }
    with_own_path<T>(problem, threads_, workspace,
                     [&](const auto& path) { path.forward(in, filters, offset, out); });
  });
}

void CpuBackend::conv2d_backward_input(const Conv2dProblem& problem, ConstView dy, ConstView w,
                                       View dx, GradMode mode, Workspace workspace) {
  constexpr std::string_view op = "conv2d_backward_input";
  const Pass pass = Pass::backward_input;
  check_workspace(op, workspace, conv2d_workspace(problem, pass, mode));
  with_real(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* upstream = elements<T>(op, dy);
    const T* filters = elements<T>(op, w);
    T* out = elements<T>(op, dx);
    if constexpr (std::is_same_v<T, float>) {
      if (uses_winograd(problem, pass))
        return WinogradConv2d{problem, threads_, workspace}.backward_input(upstream, filters, out,
                                                                           mode);
      if (uses_pointwise(problem, pass))
        return PointwiseConv2d{problem, threads_}.backward_input(upstream, filters, out, mode);
      if (uses_direct(problem, pass))
        return DirectConv2d{problem, threads_}.backward_input(upstream, filters, out, mode);
      if (uses_onednn(onednn_.get(), problem, pass))
        return onednn_->conv2d(problem, pass, mode, {.w = filters, .dy = upstream, .out = out},
                               workspace);
    }
    with_own_path<T>(problem, threads_, workspace,
                     [&](const auto& path) { path.backward_input(upstream, filters, out, mode); });
  });
}

void CpuBackend::conv2d_backward_weight(const Conv2dProblem& problem, ConstView x, ConstView dy,
                                        View dw, GradMode mode, Workspace workspace) {
  constexpr std::string_view op = "conv2d_backward_weight";
  const Pass pass = Pass::backward_weight;
  check_workspace(op, workspace, conv2d_workspace(problem, pass, mode));
  with_real(op, problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>(op, x);
    const T* upstream = elements<T>(op, dy);
    T* out = elements<T>(op, dw);
    if constexpr (std::is_same_v<T, float>) {
      if (uses_winograd(problem, pass))
        return WinogradConv2d{problem, threads_, workspace}.backward_weight(in, upstream, out,
                                                                            mode);
      if (uses_pointwise(problem, pass))
        return PointwiseConv2d{problem, threads_}.backward_weight(in, upstream, out, mode);
      if (uses_direct(problem, pass))
        return DirectConv2d{problem, threads_}.backward_weight(in, upstream, out, mode);
      if (uses_onednn(onednn_.get(), problem, pass))
        return onednn_->conv2d(problem, pass, mode, {.x = in, .dy = upstream, .out = out},
                               workspace);
    }
    with_own_path<T>(problem, threads_, workspace,
                     [&](const auto& path) { path.backward_weight(in, upstream, out, mode); });
  });
}

}  // namespace nf::cpu
