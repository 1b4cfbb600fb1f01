// Pooling. The backward passes gather: each input cell asks the windows that cover it, so that no
// two threads write the same cell.
#include <array>
#include <limits>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kLanes = 64;  // channels in flight

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// Input rows under window `o`, without the padding.
Range window(std::int64_t o, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
             std::int64_t extent) {
  const std::int64_t start = o * stride - padding;
  return {std::max<std::int64_t>(start, 0), std::min(start + kernel, extent)};
}

// Windows that cover input row `i`.
Range windows_over(std::int64_t i, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                   std::int64_t out_extent) {
  const std::int64_t first = i + padding - kernel + 1;  // starts at or behind this
  return {first <= 0 ? 0 : (first + stride - 1) / stride,
          std::min((i + padding) / stride + 1, out_extent)};
}

// Cells that an average divides by.
std::int64_t divisor(const Pool2dProblem& p, std::int64_t oh, std::int64_t ow) {
  const auto cells = [&](std::int64_t o, std::int64_t extent) {
    if (!p.count_include_pad) return window(o, p.kernel, p.stride, p.padding, extent).size();
    const std::int64_t start = o * p.stride - p.padding;
    return std::min(start + p.kernel, extent + p.padding) - start;
  };
  return cells(oh, p.h) * cells(ow, p.w);
}

Range adaptive_window(std::int64_t o, std::int64_t in, std::int64_t out) {
  return {o * in / out, ((o + 1) * in + out - 1) / out};
}

Range adaptive_windows_over(std::int64_t i, std::int64_t in, std::int64_t out) {
  return {i * out / in, ((i + 1) * out + in - 1) / in};
}

std::int64_t grain_rows(std::int64_t row_elements) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(row_elements, 1));
}

template <typename Fn>
void with_index(std::string_view op, DType dtype, const Fn& fn) {
  if (dtype == DType::u8) return fn(std::uint8_t{});
  if (dtype == DType::i32) return fn(std::int32_t{});
  fail("{}: argmax must be u8 or i32, got {}", op, to_string(dtype));
}

// The maximum over one window for `lanes` channels.
template <typename T, typename Index>
void max_of_window(const Pool2dProblem& p, const T* image, std::int64_t oh, std::int64_t ow,
                   std::int64_t lanes, T* y, Index* argmax) {
  std::array<T, kLanes> best;
  std::array<std::int32_t, kLanes> index{};
  best.fill(-std::numeric_limits<T>::infinity());
  T* value = best.data();
  std::int32_t* cell = index.data();
  const Range rows = window(oh, p.kernel, p.stride, p.padding, p.h);
  const Range columns = window(ow, p.kernel, p.stride, p.padding, p.w);
  bool first = true;
  for (std::int64_t ih = rows.begin; ih < rows.end; ++ih) {
    for (std::int64_t iw = columns.begin; iw < columns.end; ++iw) {
      const T* x = image + (ih * p.w + iw) * p.c;
      const auto k = static_cast<std::int32_t>((ih - oh * p.stride + p.padding) * p.kernel + iw -
                                               ow * p.stride + p.padding);
#pragma omp simd
      for (std::int64_t c = 0; c < lanes; ++c) {
        const bool wins = first | (x[c] > value[c]) | ((x[c] != x[c]) & (value[c] == value[c]));
        value[c] = wins ? x[c] : value[c];
        cell[c] = wins ? k : cell[c];
      }
      first = false;
    }
  }
  for (std::int64_t c = 0; c < lanes; ++c) y[c] = value[c];
  if (argmax != nullptr)
    for (std::int64_t c = 0; c < lanes; ++c) argmax[c] = static_cast<Index>(cell[c]);
}

// out (+)= sums of `lanes` channels over a rectangle of an image, divided.
template <typename T>
void mean_of_window(const T* image, std::int64_t w, std::int64_t channels, Range rows,
                    Range columns, T factor, std::int64_t lanes, T* out) {
  std::array<T, kLanes> sum{};
  T* total = sum.data();
  for (std::int64_t ih = rows.begin; ih < rows.end; ++ih)
    for (std::int64_t iw = columns.begin; iw < columns.end; ++iw) {
      const T* x = image + (ih * w + iw) * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < lanes; ++c) total[c] += x[c];
    }
#pragma omp simd
  for (std::int64_t c = 0; c < lanes; ++c) out[c] = total[c] * factor;
}

// Calls fn(image, row, column, first channel, channels) for every cell of (n, h, w) and block of
// channels, in parallel over n and h.
template <typename Fn>
void for_cells(int threads, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c, Fn fn) {
  parallel_simd(threads, n * h, grain_rows(w * c), [=](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t column = 0; column < w; ++column)
        for (std::int64_t first = 0; first < c; first += kLanes)
          fn(row / h, row % h, column, first, std::min(kLanes, c - first));
  });
}

}  // namespace

void CpuBackend::max_pool_forward(const Pool2dProblem& problem, ConstView x, View y, View argmax) {
  with_real("max_pool", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    with_index("max_pool", argmax ? argmax.dtype : DType::u8, [&](auto index) {
      using Index = decltype(index);
      const Pool2dProblem p = problem;
      const T* in = elements<T>("max_pool", x);
      T* out = y.as<T>();
      Index* where = argmax.as<Index>();
      const std::int64_t out_h = p.out_h(), out_w = p.out_w();
      for_cells(threads_, p.n, out_h, out_w, p.c,
                [=](std::int64_t image, std::int64_t oh, std::int64_t ow, std::int64_t first,
                    std::int64_t lanes) {
                  const std::int64_t at = ((image * out_h + oh) * out_w + ow) * p.c + first;
                  max_of_window(p, in + image * p.h * p.w * p.c + first, oh, ow, lanes, out + at,
                                where == nullptr ? nullptr : where + at);
                });
    });
  });
}

void CpuBackend::max_pool_backward(const Pool2dProblem& problem, ConstView argmax, ConstView dy,
                                   View dx, GradMode mode) {
  with_real("max_pool_backward", dx.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    with_index("max_pool_backward", argmax.dtype, [&](auto index) {
      using Index = decltype(index);
      const Pool2dProblem p = problem;
      const Index* where = argmax.as<Index>();
      const T* upstream = elements<T>("max_pool_backward", dy);
      T* out = dx.as<T>();
      const std::int64_t out_h = p.out_h(), out_w = p.out_w();
      const bool accumulate = mode == GradMode::accumulate;
      for_cells(threads_, p.n, p.h, p.w, p.c,
                [=](std::int64_t image, std::int64_t ih, std::int64_t iw, std::int64_t first,
                    std::int64_t lanes) {
                  const Range rows = windows_over(ih, p.kernel, p.stride, p.padding, out_h);
                  const Range columns = windows_over(iw, p.kernel, p.stride, p.padding, out_w);
                  T* cell = out + ((image * p.h + ih) * p.w + iw) * p.c + first;
                  std::array<T, kLanes> sum{};
                  T* total = sum.data();
                  for (std::int64_t oh = rows.begin; oh < rows.end; ++oh)
                    for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
                      const auto k =
                          static_cast<Index>((ih - oh * p.stride + p.padding) * p.kernel + iw -
                                             ow * p.stride + p.padding);
                      const std::int64_t at = ((image * out_h + oh) * out_w + ow) * p.c + first;
#pragma omp simd
                      for (std::int64_t c = 0; c < lanes; ++c)
                        total[c] += where[at + c] == k ? upstream[at + c] : T{0};
                    }
#pragma omp simd
                  for (std::int64_t c = 0; c < lanes; ++c)
                    cell[c] = (accumulate ? cell[c] : T{0}) + total[c];
                });
    });
  });
}

void CpuBackend::avg_pool_forward(const Pool2dProblem& problem, ConstView x, View y) {
  with_real("avg_pool", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const Pool2dProblem p = problem;
    const T* in = elements<T>("avg_pool", x);
    T* out = y.as<T>();
    const std::int64_t out_h = p.out_h(), out_w = p.out_w();
    for_cells(threads_, p.n, out_h, out_w, p.c,
              [=](std::int64_t image, std::int64_t oh, std::int64_t ow, std::int64_t first,
                  std::int64_t lanes) {
                mean_of_window(in + image * p.h * p.w * p.c + first, p.w, p.c,
                               window(oh, p.kernel, p.stride, p.padding, p.h),
                               window(ow, p.kernel, p.stride, p.padding, p.w),
                               T{1} / static_cast<T>(divisor(p, oh, ow)), lanes,
                               out + ((image * out_h + oh) * out_w + ow) * p.c + first);
              });
  });
}

void CpuBackend::avg_pool_backward(const Pool2dProblem& problem, ConstView dy, View dx,
                                   GradMode mode) {
  with_real("avg_pool_backward", dx.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const Pool2dProblem p = problem;
    const T* upstream = elements<T>("avg_pool_backward", dy);
    T* out = dx.as<T>();
    const std::int64_t out_h = p.out_h(), out_w = p.out_w();
    const bool accumulate = mode == GradMode::accumulate;
    for_cells(threads_, p.n, p.h, p.w, p.c,
              [=](std::int64_t image, std::int64_t ih, std::int64_t iw, std::int64_t first,
                  std::int64_t lanes) {
                const Range rows = windows_over(ih, p.kernel, p.stride, p.padding, out_h);
                const Range columns = windows_over(iw, p.kernel, p.stride, p.padding, out_w);
                T* cell = out + ((image * p.h + ih) * p.w + iw) * p.c + first;
                std::array<T, kLanes> sum{};
                T* total = sum.data();
                for (std::int64_t oh = rows.begin; oh < rows.end; ++oh)
                  for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
                    const T factor = T{1} / static_cast<T>(divisor(p, oh, ow));
                    const T* g = upstream + ((image * out_h + oh) * out_w + ow) * p.c + first;
#pragma omp simd
                    for (std::int64_t c = 0; c < lanes; ++c) total[c] += g[c] * factor;
                  }
#pragma omp simd
                for (std::int64_t c = 0; c < lanes; ++c)
                  cell[c] = (accumulate ? cell[c] : T{0}) + total[c];
              });
  });
}

void CpuBackend::adaptive_avg_pool_forward(ConstView x, View y) {
  with_real("adaptive_avg_pool", y.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const std::int64_t n = x.shape[0], h = x.shape[1], w = x.shape[2], channels = x.shape[3];
    const std::int64_t out_h = y.shape[1], out_w = y.shape[2];
    const T* in = elements<T>("adaptive_avg_pool", x);
    T* out = y.as<T>();
    for_cells(threads_, n, out_h, out_w, channels,
              [=](std::int64_t image, std::int64_t oh, std::int64_t ow, std::int64_t first,
                  std::int64_t lanes) {
                const Range rows = adaptive_window(oh, h, out_h);
                const Range columns = adaptive_window(ow, w, out_w);
                mean_of_window(in + image * h * w * channels + first, w, channels, rows, columns,
                               T{1} / static_cast<T>(rows.size() * columns.size()), lanes,
                               out + ((image * out_h + oh) * out_w + ow) * channels + first);
              });
  });
}

void CpuBackend::adaptive_avg_pool_backward(ConstView dy, View dx, GradMode mode) {
  with_real("adaptive_avg_pool_backward", dx.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const std::int64_t n = dx.shape[0], h = dx.shape[1], w = dx.shape[2], channels = dx.shape[3];
    const std::int64_t out_h = dy.shape[1], out_w = dy.shape[2];
    const T* upstream = elements<T>("adaptive_avg_pool_backward", dy);
    T* out = dx.as<T>();
    const bool accumulate = mode == GradMode::accumulate;
    for_cells(threads_, n, h, w, channels,
              [=](std::int64_t image, std::int64_t ih, std::int64_t iw, std::int64_t first,
                  std::int64_t lanes) {
                const Range rows = adaptive_windows_over(ih, h, out_h);
                const Range columns = adaptive_windows_over(iw, w, out_w);
                T* cell = out + ((image * h + ih) * w + iw) * channels + first;
                std::array<T, kLanes> sum{};
                T* total = sum.data();
                for (std::int64_t oh = rows.begin; oh < rows.end; ++oh)
                  for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
                    const std::int64_t cells =
                        adaptive_window(oh, h, out_h).size() * adaptive_window(ow, w, out_w).size();
                    const T factor = T{1} / static_cast<T>(cells);
                    const T* g = upstream + ((image * out_h + oh) * out_w + ow) * channels + first;
#pragma omp simd
                    for (std::int64_t c = 0; c < lanes; ++c) total[c] += g[c] * factor;
                  }
#pragma omp simd
                for (std::int64_t c = 0; c < lanes; ++c)
                  cell[c] = (accumulate ? cell[c] : T{0}) + total[c];
              });
  });
}

}  // namespace nf::cpu
