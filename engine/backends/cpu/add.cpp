// Element-wise sums and products, and sums over all but the last dimension.
#include <array>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {

void CpuBackend::axpy(double alpha, ConstView x, View y) {
  with_real("axpy", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>("axpy", x);
    T* out = y.as<T>();
    const T factor = static_cast<T>(alpha);
    parallel_simd(threads_, y.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] += factor * in[i];
    });
  });
}

void CpuBackend::add(ConstView a, ConstView b, View out) {
  with_real("add", out.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* left = elements<T>("add", a);
    const T* right = elements<T>("add", b);
    T* sum = out.as<T>();
    parallel_simd(threads_, out.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) sum[i] = left[i] + right[i];
    });
  });
}

namespace {

constexpr std::int64_t kLanes = 64;       // channels summed at a time
constexpr std::int64_t kRunOfRows = 128;  // rows summed in T before they go into a double

// sums[c] = sum over rows begin..end of x[row * channels + c], for `lanes` channels.
template <typename T>
void column_sums(const T* x, std::int64_t channels, std::int64_t begin, std::int64_t end,
                 std::int64_t lanes, double* sums) {
  std::fill(sums, sums + lanes, 0.0);
  for (std::int64_t start = begin; start < end; start += kRunOfRows) {
    std::array<T, kLanes> run{};
    const std::int64_t stop = std::min(end, start + kRunOfRows);
    for (std::int64_t row = start; row < stop; ++row) {
      const T* cells = x + row * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < lanes; ++c) run[static_cast<std::size_t>(c)] += cells[c];
    }
    for (std::int64_t c = 0; c < lanes; ++c) sums[c] += double{run[static_cast<std::size_t>(c)]};
  }
}

}  // namespace

void CpuBackend::bias_backward(ConstView dy, View db, GradMode mode, Workspace) {
  with_real("bias_backward", dy.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* x = dy.as<T>();
    T* out = elements<T>("bias_backward", db);
    const std::int64_t channels = db.numel();
    const std::int64_t rows = channels == 0 ? 0 : dy.numel() / channels;
    std::array<double, kMaxThreads * kLanes> partial;
    double* sums = partial.data();
    for (std::int64_t first = 0; first < channels; first += kLanes) {
      const std::int64_t lanes = std::min(kLanes, channels - first);
      const std::int64_t grain = kGrain / kLanes;
      std::fill(sums, sums + lanes, 0.0);
      parallel_simd(threads_, rows, grain, [=](std::int64_t begin, std::int64_t end, int chunk) {
        column_sums(x + first, channels, begin, end, lanes, sums + chunk * kLanes);
      });
      for (int chunk = 1; chunk < chunks(threads_, rows, grain); ++chunk)
        for (std::int64_t c = 0; c < lanes; ++c) sums[c] += sums[chunk * kLanes + c];
      for (std::int64_t c = 0; c < lanes; ++c) {
        const T sum = static_cast<T>(sums[c]);
        out[first + c] = mode == GradMode::accumulate ? out[first + c] + sum : sum;
      }
    }
  });
}

}  // namespace nf::cpu
