#include "kernels/random.h"

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf::NF_TARGET {

void GpuBackend::dropout(double p, PhiloxKey key, ConstView x, View y, GradMode mode) {
  with_storage("dropout", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::dropout(stream(), p, key, elements<T>("dropout", x), elements<T>("dropout", y),
                       y.numel(), accumulates(mode));
  });
}

void GpuBackend::fill_uniform(RandomAddress at, double low, double high, View y) {
  with_storage("uniform", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::fill_uniform(stream(), at.key, at.stream, elements<T>("uniform", y), y.numel(),
                            static_cast<float>(low), static_cast<float>(high));
  });
}

void GpuBackend::fill_normal(RandomAddress at, double mean, double stddev, View y) {
  with_storage("normal", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::fill_normal(stream(), at.key, at.stream, elements<T>("normal", y), y.numel(),
                           static_cast<float>(mean), static_cast<float>(stddev));
  });
}

}  // namespace nf::NF_TARGET
