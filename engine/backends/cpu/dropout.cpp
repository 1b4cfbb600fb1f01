#include <cmath>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "kernels/philox.h"

namespace nf::cpu {
namespace {

// One draw of the generator serves four elements; this many draws are made side by side.
constexpr std::int64_t kDraws = 16;

}  // namespace

void CpuBackend::dropout(double p, PhiloxKey philox_key, ConstView x, View y, GradMode mode) {
  const std::uint64_t key = philox_key.get();
  with_real("dropout", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>("dropout", x);
    T* out = y.as<T>();
    const std::int64_t numel = y.numel();
    const T scale = static_cast<T>(1.0 / (1.0 - p));
    // uniform01(bits) >= p, put as a comparison of its 24 bits.
    const auto threshold = static_cast<std::uint32_t>(std::ceil(p * 0x1p24));
    with_flag(mode == GradMode::accumulate, [&](auto accumulate) {
      const std::int64_t blocks = (numel + 4 * kDraws - 1) / (4 * kDraws);
      parallel_simd(threads_, blocks, 32, [=](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t block = begin; block < end; ++block) {
          std::uint32_t bits[4 * kDraws];
#pragma omp simd
          for (std::int64_t draw = 0; draw < kDraws; ++draw) {
            const Philox4 four = philox(key, static_cast<std::uint64_t>(block * kDraws + draw), 0);
            for (int i = 0; i < 4; ++i) bits[4 * draw + i] = four.v[i];
          }
          const std::int64_t first = block * 4 * kDraws;
          const std::int64_t count = std::min(4 * kDraws, numel - first);
          for (std::int64_t i = 0; i < count; ++i) {
            const T kept = (bits[i] >> 8) >= threshold ? in[first + i] * scale : T{0};
            out[first + i] = accumulate ? out[first + i] + kept : kept;
          }
        }
      });
    });
  });
}

}  // namespace nf::cpu
