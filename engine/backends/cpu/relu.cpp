#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {

void CpuBackend::relu_forward(Activation activation, ConstView x, View y) {
  if (activation == Activation::none) return copy(y, x);
  with_real("relu", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>("relu", x);
    T* out = y.as<T>();
    const T bound = static_cast<T>(upper_bound(activation));
    parallel_simd(threads_, y.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        // In this order a NaN passes through.
        const T cut = in[i] < T{0} ? T{0} : in[i];
        out[i] = bound < cut ? bound : cut;
      }
    });
  });
}

void CpuBackend::relu_backward(Activation activation, ConstView y, ConstView dy, View dx,
                               GradMode mode) {
  with_real("relu_backward", dx.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* out = elements<T>("relu_backward", y);
    const T* upstream = elements<T>("relu_backward", dy);
    T* gradient = dx.as<T>();
    const bool linear = activation == Activation::none;
    const T bound = static_cast<T>(upper_bound(activation));
    with_flag(mode == GradMode::accumulate, [&](auto accumulate) {
      parallel_simd(threads_, dx.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) {
          const bool passes = linear | ((out[i] > T{0}) & (out[i] < bound));
          const T masked = passes ? upstream[i] : T{0};
          gradient[i] = accumulate ? gradient[i] + masked : masked;
        }
      });
    });
  });
}

}  // namespace nf::cpu
