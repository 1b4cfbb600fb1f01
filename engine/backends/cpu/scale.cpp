#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {

void CpuBackend::scale(double alpha, ConstView x, View y) {
  with_real("scale", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>("scale", x);
    T* out = y.as<T>();
    const T factor = static_cast<T>(alpha);
    parallel_simd(threads_, y.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] = factor * in[i];
    });
  });
}

}  // namespace nf::cpu
