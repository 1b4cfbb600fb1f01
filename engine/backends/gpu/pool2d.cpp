#include "kernels/pool2d.h"

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf::NF_TARGET {
namespace {

PoolWindows windows_of(const Pool2dProblem& p) {
  return {.n = p.n,
          .h = p.h,
          .w = p.w,
          .c = p.c,
          .out_h = p.out_h(),
          .out_w = p.out_w(),
          .kernel = p.kernel,
          .stride = p.stride,
          .padding = p.padding,
          .count_include_pad = p.count_include_pad};
}

}  // namespace

void GpuBackend::max_pool_forward(const Pool2dProblem& problem, ConstView x, View y, View argmax) {
  constexpr std::string_view op = "max_pool";
  with_storage(op, x.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    if (argmax && argmax.dtype == DType::i32)
      NF_TARGET::max_pool_forward(stream(), windows_of(problem), elements<T>(op, x),
                                  elements<T>(op, y), elements<std::int32_t>(op, argmax));
    else
      NF_TARGET::max_pool_forward(stream(), windows_of(problem), elements<T>(op, x),
                                  elements<T>(op, y), elements<std::uint8_t>(op, argmax));
  });
}

void GpuBackend::max_pool_backward(const Pool2dProblem& problem, ConstView argmax, ConstView dy,
                                   View dx, GradMode mode) {
  constexpr std::string_view op = "max_pool_backward";
  with_storage(op, dy.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    if (argmax.dtype == DType::i32)
      NF_TARGET::max_pool_backward(stream(), windows_of(problem),
                                   elements<std::int32_t>(op, argmax), elements<T>(op, dy),
                                   elements<T>(op, dx), accumulates(mode));
    else
      NF_TARGET::max_pool_backward(stream(), windows_of(problem),
                                   elements<std::uint8_t>(op, argmax), elements<T>(op, dy),
                                   elements<T>(op, dx), accumulates(mode));
  });
}

void GpuBackend::avg_pool_forward(const Pool2dProblem& problem, ConstView x, View y) {
  constexpr std::string_view op = "avg_pool";
  with_storage(op, x.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::avg_pool_forward(stream(), windows_of(problem), elements<T>(op, x),
                                elements<T>(op, y));
  });
}

void GpuBackend::avg_pool_backward(const Pool2dProblem& problem, ConstView dy, View dx,
                                   GradMode mode) {
  constexpr std::string_view op = "avg_pool_backward";
  with_storage(op, dy.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::avg_pool_backward(stream(), windows_of(problem), elements<T>(op, dy),
                                 elements<T>(op, dx), accumulates(mode));
  });
}

void GpuBackend::adaptive_avg_pool_forward(ConstView x, View y) {
  constexpr std::string_view op = "adaptive_avg_pool";
  with_storage(op, x.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::adaptive_avg_pool_forward(stream(), x.shape[0], x.shape[1], x.shape[2], x.shape[3],
                                         y.shape[1], y.shape[2], elements<T>(op, x),
                                         elements<T>(op, y));
  });
}

void GpuBackend::adaptive_avg_pool_backward(ConstView dy, View dx, GradMode mode) {
  constexpr std::string_view op = "adaptive_avg_pool_backward";
  with_storage(op, dy.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::adaptive_avg_pool_backward(
        stream(), dx.shape[0], dx.shape[1], dx.shape[2], dx.shape[3], dy.shape[1], dy.shape[2],
        elements<T>(op, dy), elements<T>(op, dx), accumulates(mode));
  });
}

}  // namespace nf::NF_TARGET
