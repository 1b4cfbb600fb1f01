// Reductions by row. A row is cut into at most kParts parts, by its length alone, so that the bits
// do not depend on the number of threads.
#include <array>
#include <cmath>
#include <limits>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kRun = 32 * kLanes;  // elements that lanes sum in f64 by themselves
constexpr std::int64_t kParts = 64;
constexpr std::int64_t kLeastPart = 8192;

/// Neumaier's sum: the error of each addition is kept and added at the end.
struct Compensated {
  double sum = 0, lost = 0;
  void add(double value) {
    const double next = sum + value;
    lost += std::abs(sum) >= std::abs(value) ? (sum - next) + value : (value - next) + sum;
    sum = next;
  }
  // Where the sum is infinite, what was lost is NaN.
  double value() const { return std::isfinite(sum) ? sum + lost : sum; }
};

template <typename T, typename Term>
double sum_part(const T* x, std::int64_t n, Term term) {
  Compensated total;
  for (std::int64_t start = 0; start < n; start += kRun) {
    std::array<double, kLanes> lanes{};
    const std::int64_t count = std::min(kRun, n - start);
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const std::int64_t width = std::min(kLanes, count - i);
      const T* from = x + start + i;
#pragma omp simd
      for (std::int64_t k = 0; k < width; ++k)
        lanes[static_cast<std::size_t>(k)] += term(double{from[k]});
    }
    for (const double lane : lanes) total.add(lane);
  }
  return total.value();
}

/// `better(a, b)`: a replaces b. A NaN replaces all and is replaced by none.
template <typename T, typename Better>
double extreme_of_part(const T* x, std::int64_t n, Better better) {
  std::array<T, kLanes> lanes;
  lanes.fill(x[0]);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const std::int64_t width = std::min(kLanes, n - i);
    const T* from = x + i;
#pragma omp simd
    for (std::int64_t k = 0; k < width; ++k) {
      const auto lane = static_cast<std::size_t>(k);
      lanes[lane] = better(from[k], lanes[lane]) || from[k] != from[k] ? from[k] : lanes[lane];
    }
  }
  T best = lanes[0];
  for (const T lane : lanes) best = better(lane, best) || lane != lane ? lane : best;
  return double{best};
}

constexpr auto kLess = [](auto a, auto b) { return a < b; };
constexpr auto kGreater = [](auto a, auto b) { return a > b; };

template <typename T>
double reduce_part(Reduction reduction, const T* x, std::int64_t n) {
  switch (reduction) {
    case Reduction::min:
      return extreme_of_part(x, n, kLess);
    case Reduction::max:
      return extreme_of_part(x, n, kGreater);
    case Reduction::sum_of_squares:
      return sum_part(x, n, [](double value) { return value * value; });
    default:
      return sum_part(x, n, [](double value) { return value; });
  }
}

/// Of what the parts gave.
double join(Reduction reduction, const double* parts, std::int64_t count, std::int64_t columns) {
  if (reduction == Reduction::min) return extreme_of_part(parts, count, kLess);
  if (reduction == Reduction::max) return extreme_of_part(parts, count, kGreater);
  Compensated total;
  for (std::int64_t part = 0; part < count; ++part) total.add(parts[part]);
  return reduction == Reduction::mean ? total.value() / static_cast<double>(columns)
                                      : total.value();
}

}  // namespace

void CpuBackend::reduce(Reduction reduction, ConstView x, View y, Workspace) {
  with_real("reduce", x.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = x.as<T>();
    T* out = elements<T>("reduce", y);
    const std::int64_t rows = y.numel(), columns = x.numel() / rows;
    const std::int64_t count = std::clamp<std::int64_t>(columns / kLeastPart, 1, kParts);
    const auto part_of = [=](std::int64_t row, std::int64_t part) {
      const std::int64_t begin = columns * part / count, end = columns * (part + 1) / count;
      return reduce_part(reduction, in + row * columns + begin, end - begin);
    };
    // Threads share the rows, or each row where it has parts to share.
    if (count == 1) {
      const std::int64_t grain = kGrain / columns + 1;
      parallel_simd(threads_, rows, grain, [=](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t row = begin; row < end; ++row) {
          const double whole = part_of(row, 0);
          out[row] = static_cast<T>(join(reduction, &whole, 1, columns));
        }
      });
      return;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      std::array<double, kParts> partial;
      double* parts = partial.data();
      parallel_simd(threads_, count, 2, [=](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t part = begin; part < end; ++part) parts[part] = part_of(row, part);
      });
      out[row] = static_cast<T>(join(reduction, parts, count, columns));
    }
  });
}

void CpuBackend::spread_rows(double factor, ConstView dy, View dx, GradMode mode) {
  with_real("spread_rows", dx.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const T* in = elements<T>("spread_rows", dy);
    T* out = dx.as<T>();
    const std::int64_t columns = dx.numel() / dy.numel();
    const T scale = static_cast<T>(factor);
    with_flag(mode == GradMode::accumulate, [&](auto accumulate) {
      parallel_simd(threads_, dx.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end;) {
          const std::int64_t row = i / columns, stop = std::min(end, (row + 1) * columns);
          const T value = scale * in[row];
#pragma omp simd
          for (std::int64_t k = i; k < stop; ++k) out[k] = accumulate ? out[k] + value : value;
          i = stop;
        }
      });
    });
  });
}

namespace {

/// x - x is 0 but for an infinity or NaN.
template <typename T>
bool is_finite(const T* x, std::int64_t n) {
  T differences = 0;
#pragma omp simd reduction(+ : differences)
  for (std::int64_t i = 0; i < n; ++i) differences += x[i] - x[i];
  return differences == T{0};
}

bool is_finite(int threads, std::string_view op, ConstView x) {
  std::array<bool, kMaxThreads> partial;
  partial.fill(true);
  bool* parts = partial.data();
  with_real(op, x.dtype, [&](auto scalar) {
    const auto* values = x.as<decltype(scalar)>();
    parallel_simd(threads, x.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int chunk) {
      parts[chunk] = is_finite(values + begin, end - begin);
    });
  });
  return std::all_of(partial.begin(), partial.end(), [](bool part) { return part; });
}

}  // namespace

void CpuBackend::all_finite(ConstView x, View flag) {
  auto* result = elements<std::int32_t>("all_finite", flag);
  if (!is_finite(threads_, "all_finite", x)) *result = 0;
}

void CpuBackend::gradients_finite(std::span<const ConstView> gradients, View flag) {
  auto* result = elements<std::int32_t>("gradients_finite", flag);
  for (const ConstView& gradient : gradients)
    if (!is_finite(threads_, "gradients_finite", gradient)) *result = 0;
}

}  // namespace nf::cpu
