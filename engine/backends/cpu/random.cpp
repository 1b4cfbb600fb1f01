#include <algorithm>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "kernels/normal.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kDrawsOfAThread = 512;

/// y[i] = offset + number i * scale, fused in f32; one draw makes four numbers. The bits are those
/// of kernels/random.cuh.
template <typename T, typename Numbers>
void fill_random(int threads, RandomAddress at, View y, float offset, float scale,
                 Numbers numbers) {
  T* out = y.as<T>();
  const std::int64_t numel = y.numel();
  parallel_simd(
      threads, (numel + 3) / 4, kDrawsOfAThread, [=](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t draw = begin; draw < end; ++draw) {
          const Normal4 four = numbers(philox(at.key, static_cast<std::uint64_t>(draw), at.stream));
          const std::int64_t count = std::min<std::int64_t>(4, numel - 4 * draw);
          for (std::int64_t i = 0; i < count; ++i)
            out[4 * draw + i] = T{normal_detail::fused(four.v[i], scale, offset)};
        }
      });
}

}  // namespace

void CpuBackend::fill_uniform(RandomAddress at, double low, double high, View y) {
  const auto from = static_cast<float>(low);
  with_real("uniform", y.dtype, [&](auto scalar) {
    fill_random<decltype(scalar)>(threads_, at, y, from, static_cast<float>(high) - from,
                                  [](const Philox4& bits) {
                                    Normal4 numbers;
                                    for (int i = 0; i < 4; ++i) numbers.v[i] = uniform01(bits.v[i]);
                                    return numbers;
                                  });
  });
}

void CpuBackend::fill_normal(RandomAddress at, double mean, double stddev, View y) {
  with_real("normal", y.dtype, [&](auto scalar) {
    fill_random<decltype(scalar)>(threads_, at, y, static_cast<float>(mean),
                                  static_cast<float>(stddev),
                                  [](const Philox4& bits) { return normal4(bits); });
  });
}

}  // namespace nf::cpu
