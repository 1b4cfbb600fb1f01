#include <cmath>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {

void CpuBackend::batch_norm_fold(double eps, ConstView gamma, ConstView beta,
                                 ConstView running_mean, ConstView running_var, ConstView w,
                                 ConstView bias, View folded_w, View folded_bias) {
  constexpr std::string_view op = "batch_norm_fold";
  with_real(op, folded_w.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* g = elements<T>(op, gamma);
    const T* b = elements<T>(op, beta);
    const T* mean = elements<T>(op, running_mean);
    const T* variance = elements<T>(op, running_var);
    const T* weights = elements<T>(op, w);
    const T* offset = elements<T>(op, bias);
    T* out = elements<T>(op, folded_w);
    T* shift = elements<T>(op, folded_bias);
    const std::int64_t channels = gamma.numel();
    const std::int64_t each = channels == 0 ? 0 : w.numel() / channels;
    parallel_simd(threads_, channels, kGrain / std::max<std::int64_t>(each, 1) + 1,
                  [=](std::int64_t begin, std::int64_t end, int) {
                    for (std::int64_t c = begin; c < end; ++c) {
                      const double scale = double{g[c]} / std::sqrt(double{variance[c]} + eps);
                      const double from = offset == nullptr ? 0.0 : double{offset[c]};
                      shift[c] = static_cast<T>((from - double{mean[c]}) * scale + double{b[c]});
                      const T factor = static_cast<T>(scale);
                      const T* row = weights + c * each;
                      T* to = out + c * each;
#pragma omp simd
                      for (std::int64_t i = 0; i < each; ++i) to[i] = factor * row[i];
                    }
                  });
  });
}

}  // namespace nf::cpu
