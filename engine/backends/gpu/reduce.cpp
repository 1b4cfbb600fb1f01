#include "kernels/reduce.h"

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"
#include "kernels/elementwise.h"

namespace nf::NF_TARGET {
namespace {

NF_TARGET::Reduction kernel_reduction(nf::Reduction reduction) {
  switch (reduction) {
    case nf::Reduction::sum:
      return NF_TARGET::Reduction::sum;
    case nf::Reduction::mean:
      return NF_TARGET::Reduction::mean;
    case nf::Reduction::min:
      return NF_TARGET::Reduction::min;
    case nf::Reduction::max:
      return NF_TARGET::Reduction::max;
    case nf::Reduction::sum_of_squares:
      return NF_TARGET::Reduction::sum_of_squares;
  }
  fail("reduce: unknown reduction {}", static_cast<int>(reduction));
}

}  // namespace

// A single row takes all of the device.
std::int64_t GpuBackend::reduce_workspace(std::int64_t rows, std::int64_t columns) const {
  return rows == 1 ? reduce_all_workspace(columns) : 0;
}

void GpuBackend::reduce(nf::Reduction reduction, ConstView x, View y, Workspace workspace) {
  const std::int64_t rows = y.numel(), columns = x.numel() / rows;
  check_workspace("reduce", workspace, reduce_workspace(rows, columns));
  const NF_TARGET::Reduction kind = kernel_reduction(reduction);
  float* out = elements<float>("reduce", y);
  with_storage("reduce", x.dtype, [&](auto scalar) {
    const auto* in = elements<decltype(scalar)>("reduce", x);
    if (rows == 1)
      reduce_all(stream(), kind, in, columns, out, workspace.data);
    else
      reduce_rows(stream(), kind, in, rows, columns, out);
  });
}

void GpuBackend::spread_rows(double factor, ConstView dy, View dx, GradMode mode) {
  const std::int64_t rows = dy.numel();
  with_storage("spread_rows", dx.dtype, [&](auto scalar) {
    NF_TARGET::spread_rows(stream(), static_cast<float>(factor), elements<float>("spread_rows", dy),
                           elements<decltype(scalar)>("spread_rows", dx), rows, dx.numel() / rows,
                           accumulates(mode));
  });
}

void GpuBackend::all_finite(ConstView x, View flag) {
  with_storage("all_finite", x.dtype, [&](auto scalar) {
    NF_TARGET::all_finite(stream(), elements<decltype(scalar)>("all_finite", x), x.numel(),
                          elements<std::int32_t>("all_finite", flag));
  });
}

}  // namespace nf::NF_TARGET
