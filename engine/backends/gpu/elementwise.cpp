#include "kernels/elementwise.h"

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"
#include "kernels/reduce.h"

namespace nf::NF_TARGET {

bool GpuBackend::computes_in(DType dtype) const {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

void GpuBackend::copy(View dst, ConstView src) {
  NF_CHECK(dst.dtype == src.dtype && dst.numel() == src.numel(),
           "copy: source {} {} does not fit destination {} {}", to_string(src.dtype),
           src.shape.str(), to_string(dst.dtype), dst.shape.str());
  NF_TARGET::copy(stream(), src.data, dst.data, src.numel() * size_of(src.dtype));
}

void GpuBackend::fill(View dst, double value) {
  const auto with = [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::fill(stream(), static_cast<T*>(dst.data), dst.numel(), value);
  };
  switch (dst.dtype) {
    case DType::f64:
      return with(double{});
    case DType::u8:
      return with(std::uint8_t{});
    case DType::i32:
      return with(std::int32_t{});
    case DType::i64:
      return with(std::int64_t{});
    default:
      return with_storage("fill", dst.dtype, with);
  }
}

void GpuBackend::cast(ConstView x, View y) {
  with_storage("cast", x.dtype, [&](auto from) {
    with_storage("cast", y.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      if constexpr (std::is_same_v<From, To>)
        copy(y, x);
      else
        NF_TARGET::cast(stream(), elements<From>("cast", x), elements<To>("cast", y), x.numel());
    });
  });
}

void GpuBackend::axpy(double alpha, ConstView x, View y) {
  with_storage("axpy", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::axpy(stream(), static_cast<float>(alpha), elements<T>("axpy", x),
                    elements<T>("axpy", y), y.numel());
  });
}

void GpuBackend::scale(double alpha, ConstView x, View y) {
  with_storage("scale", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::scale(stream(), static_cast<float>(alpha), elements<T>("scale", x),
                     elements<T>("scale", y), y.numel());
  });
}

void GpuBackend::add(ConstView a, ConstView b, View out) {
  with_storage("add", out.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::add(stream(), elements<T>("add", a), elements<T>("add", b), elements<T>("add", out),
                   out.numel());
  });
}

void GpuBackend::relu_forward(Activation activation, ConstView x, View y) {
  with_storage("relu", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::relu_forward(stream(), elements<T>("relu", x), elements<T>("relu", y), y.numel(),
                            bound_of(activation));
  });
}

void GpuBackend::relu_backward(Activation activation, ConstView y, ConstView dy, View dx,
                               GradMode mode) {
  with_storage("relu_backward", dx.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::relu_backward(stream(), elements<T>("relu_backward", y),
                             elements<T>("relu_backward", dy), elements<T>("relu_backward", dx),
                             dx.numel(), bound_of(activation), accumulates(mode));
  });
}

void GpuBackend::add_bias(ConstView bias, View y, Activation activation, ConstView residual) {
  with_storage("bias", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const std::int64_t channels = bias.numel();
    const AfterBias<T> then{.residual = elements<T>("bias", residual),
                            .activate = activation != Activation::none,
                            .bound = bound_of(activation)};
    NF_TARGET::add_bias(stream(), elements<T>("bias", bias), elements<T>("bias", y),
                        y.numel() / channels, channels, then);
  });
}

std::int64_t GpuBackend::bias_backward_workspace(std::int64_t rows, std::int64_t channels) const {
  return column_sums_workspace(rows, channels);
}

void GpuBackend::bias_backward(ConstView dy, View db, GradMode mode, Workspace workspace) {
  const std::int64_t channels = db.numel(), rows = dy.numel() / channels;
  check_workspace("bias_backward", workspace, bias_backward_workspace(rows, channels));
  with_storage("bias_backward", dy.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    column_sums(stream(), elements<T>("bias_backward", dy), rows, channels,
                elements<T>("bias_backward", db), accumulates(mode), workspace.data);
  });
}

}  // namespace nf::NF_TARGET
