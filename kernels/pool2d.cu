#include "kernels/pool2d.cuh"

#include <algorithm>
#include <limits>
#include <string>

namespace nf::NF_TARGET {
namespace {

constexpr std::int64_t kMostCells = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMostPixels = 1 << 29;  // along an axis: sums of three stay in 32 bits

PoolAxis make_axis(const PoolWindows& windows, std::int64_t in, std::int64_t out) {
  return {.in = static_cast<std::int32_t>(in),
          .out = static_cast<std::int32_t>(out),
          .kernel = static_cast<std::int32_t>(windows.kernel),
          .stride = static_cast<std::int32_t>(windows.stride),
          .padding = static_cast<std::int32_t>(windows.padding),
          .by_stride = make_divider(windows.stride),
          .by_in = make_divider(std::max<std::int64_t>(in, 1)),
          .by_out = make_divider(std::max<std::int64_t>(out, 1)),
          .adaptive = false,
          .padding_too = windows.count_include_pad};
}

/// Windows of in / out cells. They are ordinary ones where that is whole.
PoolAxis make_adaptive_axis(std::int64_t in, std::int64_t out) {
  const std::int64_t cell = std::max<std::int64_t>(in / std::max<std::int64_t>(out, 1), 1);
  PoolAxis axis = make_axis({.kernel = cell, .stride = cell}, in, out);
  axis.adaptive = in != cell * out;
  return axis;
}

struct Axes {
  PoolAxis rows, columns;
};

void check_sizes(const char* name, const PoolWindows& w) {
  const std::int64_t most = std::max({w.h, w.w, w.out_h, w.out_w, w.kernel, w.stride, w.padding});
  if (most >= kMostPixels || w.stride < 1)
    throw KernelError(std::string(name) + ": sizes along an axis must stay below 2^29, got " +
                      std::to_string(most));
}

Axes make_axes(const char* name, const PoolWindows& windows) {
  check_sizes(name, windows);
  return {make_axis(windows, windows.h, windows.out_h),
          make_axis(windows, windows.w, windows.out_w)};
}

/// Calls run(pooling, first image) for groups of images of fewer than 2^31 cells of `height` rows
/// and `width` columns: cells are counted in 32 bits, positions in 64.
template <typename Run>
void for_images(const char* name, const Axes& axes, std::int64_t n, std::int64_t height,
                std::int64_t width, std::int64_t channels, int vector, const Run& run) {
  const std::int64_t vectors = channels / vector, cells = height * width * vectors;
  if (cells > kMostCells)
    throw KernelError(std::string(name) + ": an image must have fewer than 2^31 vectors, got " +
                      std::to_string(height) + "x" + std::to_string(width) + "x" +
                      std::to_string(vectors));
  if (cells == 0) return;
  const std::int64_t together = kMostCells / cells;
  for (std::int64_t first = 0; first < n; first += together)
    run(Pooling{.rows = axes.rows,
                .columns = axes.columns,
                .channels = channels,
                .cells = std::min(together, n - first) * cells,
                .by_vectors = make_divider(vectors),
                .by_columns = make_divider(width),
                .by_rows = make_divider(height)},
        first);
}

std::int64_t blocks_of(std::int64_t cells) { return (cells + kPoolThreads - 1) / kPoolThreads; }

/// Elements of an image of x and of y.
struct ImageSizes {
  explicit ImageSizes(const Axes& axes, std::int64_t channels)
      : in(std::int64_t{axes.rows.in} * axes.columns.in * channels),
        out(std::int64_t{axes.rows.out} * axes.columns.out * channels) {}
  std::int64_t in, out;
};

template <typename T, int V, typename Index>
void run_max_pool(Stream stream, const PoolWindows& w, const T* x, T* y, Index* argmax) {
  const char* name = "max_pool_forward";
  const Axes axes = make_axes(name, w);
  const ImageSizes image(axes, w.c);
  for_images(name, axes, w.n, w.out_h, w.out_w, w.c, V, [&](const Pooling& p, std::int64_t first) {
    std::uint8_t* narrow = nullptr;
    std::int32_t* wide = nullptr;
    if (argmax != nullptr) {
      if constexpr (sizeof(Index) == 1)
        narrow = argmax + first * image.out;
      else
        wide = argmax + first * image.out;
    }
    launch(name, max_pool_kernel<T, V>, {blocks_of(p.cells)}, {kPoolThreads}, 0, stream, p,
           x + first * image.in, y + first * image.out, narrow, wide);
  });
}

template <typename T, int V, typename Index>
void run_max_pool_backward(Stream stream, const PoolWindows& w, const Index* argmax, const T* dy,
                           T* dx, bool accumulate) {
  const char* name = "max_pool_backward";
  const Axes axes = make_axes(name, w);
  const ImageSizes image(axes, w.c);
  for_images(name, axes, w.n, w.h, w.w, w.c, V, [&](const Pooling& p, std::int64_t first) {
    const std::uint8_t* narrow = nullptr;
    const std::int32_t* wide = nullptr;
    if constexpr (sizeof(Index) == 1)
      narrow = argmax + first * image.out;
    else
      wide = argmax + first * image.out;
    launch(name, max_pool_backward_kernel<T, V>, {blocks_of(p.cells)}, {kPoolThreads}, 0, stream, p,
           narrow, wide, dy + first * image.out, dx + first * image.in, accumulate);
  });
}

/// Threads that share a window, as a power of two: each has four cells or more, whatever n and c
/// are, so that the sum of an image never depends on the others.
int lane_bits_for(std::int64_t window_cells) {
  int bits = 0;
  while (bits < 5 && (std::int64_t{8} << bits) <= window_cells) ++bits;
  return window_cells < 16 ? 0 : bits;
}

template <typename T, int V>
void run_average(const char* name, Stream stream, const Axes& axes, std::int64_t n, std::int64_t c,
                 int lane_bits, const T* x, T* y) {
  const ImageSizes image(axes, c);
  for_images(name, axes, n, axes.rows.out, axes.columns.out, c, V,
             [&](const Pooling& p, std::int64_t first) {
               const std::int64_t shared =
                   lane_bits == 0 ? 0 : V * kPoolThreads * static_cast<std::int64_t>(sizeof(float));
               const std::int64_t slots = kPoolThreads >> lane_bits;
               launch(name, average_kernel<T, V>, {(p.cells + slots - 1) / slots}, {kPoolThreads},
                      shared, stream, p, lane_bits, x + first * image.in, y + first * image.out);
             });
}

template <typename T>
void average(const char* name, Stream stream, const Axes& axes, std::int64_t n, std::int64_t c,
             std::int64_t window_cells, const T* x, T* y) {
  const int lane_bits = lane_bits_for(window_cells);
  if (c % kVec<T> == 0 && aligned16(x, y))
    run_average<T, kVec<T>>(name, stream, axes, n, c, lane_bits, x, y);
  else
    run_average<T, 1>(name, stream, axes, n, c, lane_bits, x, y);
}

template <typename T, int V>
void run_average_backward(const char* name, Stream stream, const Axes& axes, std::int64_t n,
                          std::int64_t c, const T* dy, T* dx, bool accumulate) {
  const ImageSizes image(axes, c);
  for_images(name, axes, n, axes.rows.in, axes.columns.in, c, V,
             [&](const Pooling& p, std::int64_t first) {
               launch(name, average_backward_kernel<T, V>, {blocks_of(p.cells)}, {kPoolThreads}, 0,
                      stream, p, dy + first * image.out, dx + first * image.in, accumulate);
             });
}

template <typename T>
void average_backward(const char* name, Stream stream, const Axes& axes, std::int64_t n,
                      std::int64_t c, const T* dy, T* dx, bool accumulate) {
  if (c % kVec<T> == 0 && aligned16(dy, dx))
    run_average_backward<T, kVec<T>>(name, stream, axes, n, c, dy, dx, accumulate);
  else
    run_average_backward<T, 1>(name, stream, axes, n, c, dy, dx, accumulate);
}

/// Whether V indices can be accessed together, 16 bytes at most at once.
template <int V, typename Index>
bool indices_aligned(const Index* argmax) {
  constexpr std::size_t kBytes = std::min<std::size_t>(V * sizeof(Index), 16);
  return reinterpret_cast<std::uintptr_t>(argmax) % kBytes == 0;
}

Axes adaptive_axes(const char* name, std::int64_t h, std::int64_t w, std::int64_t out_h,
                   std::int64_t out_w) {
  check_sizes(name, {.h = h, .w = w, .out_h = out_h, .out_w = out_w});
  const std::int64_t most = std::max((h + 1) * (out_h + 1), (w + 1) * (out_w + 1));
  if (most > kMostCells)
    throw KernelError(std::string(name) + ": inputs times outputs along an axis must stay below " +
                      "2^31, got " + std::to_string(most));
  return {make_adaptive_axis(h, out_h), make_adaptive_axis(w, out_w)};
}

}  // namespace

template <typename T, typename Index>
void max_pool_forward(Stream stream, const PoolWindows& windows, const T* x, T* y, Index* argmax) {
  if (windows.c % kVec<T> == 0 && aligned16(x, y) && indices_aligned<kVec<T>>(argmax))
    run_max_pool<T, kVec<T>>(stream, windows, x, y, argmax);
  else
    run_max_pool<T, 1>(stream, windows, x, y, argmax);
}

template <typename T, typename Index>
void max_pool_backward(Stream stream, const PoolWindows& windows, const Index* argmax, const T* dy,
                       T* dx, bool accumulate) {
  if (windows.c % kVec<T> == 0 && aligned16(dy, dx) && indices_aligned<kVec<T>>(argmax))
    run_max_pool_backward<T, kVec<T>>(stream, windows, argmax, dy, dx, accumulate);
  else
    run_max_pool_backward<T, 1>(stream, windows, argmax, dy, dx, accumulate);
}

template <typename T>
void avg_pool_forward(Stream stream, const PoolWindows& windows, const T* x, T* y) {
  const char* name = "avg_pool_forward";
  average(name, stream, make_axes(name, windows), windows.n, windows.c,
          windows.kernel * windows.kernel, x, y);
}

template <typename T>
void avg_pool_backward(Stream stream, const PoolWindows& windows, const T* dy, T* dx,
                       bool accumulate) {
  const char* name = "avg_pool_backward";
  average_backward(name, stream, make_axes(name, windows), windows.n, windows.c, dy, dx,
                   accumulate);
}

template <typename T>
void adaptive_avg_pool_forward(Stream stream, std::int64_t n, std::int64_t h, std::int64_t w,
                               std::int64_t c, std::int64_t out_h, std::int64_t out_w, const T* x,
                               T* y) {
  const char* name = "adaptive_avg_pool_forward";
  const Axes axes = adaptive_axes(name, h, w, out_h, out_w);
  average(name, stream, axes, n, c, ((h + out_h - 1) / out_h) * ((w + out_w - 1) / out_w), x, y);
}

template <typename T>
void adaptive_avg_pool_backward(Stream stream, std::int64_t n, std::int64_t h, std::int64_t w,
                                std::int64_t c, std::int64_t out_h, std::int64_t out_w, const T* dy,
                                T* dx, bool accumulate) {
  const char* name = "adaptive_avg_pool_backward";
  average_backward(name, stream, adaptive_axes(name, h, w, out_h, out_w), n, c, dy, dx, accumulate);
}

#define NF_INDEXED(T, Index)                                                        \
  template void max_pool_forward(Stream, const PoolWindows&, const T*, T*, Index*); \
  template void max_pool_backward(Stream, const PoolWindows&, const Index*, const T*, T*, bool)
#define NF_STORED(T)                                                                               \
  NF_INDEXED(T, std::uint8_t);                                                                     \
  NF_INDEXED(T, std::int32_t);                                                                     \
  template void avg_pool_forward(Stream, const PoolWindows&, const T*, T*);                        \
  template void avg_pool_backward(Stream, const PoolWindows&, const T*, T*, bool);                 \
  template void adaptive_avg_pool_forward(Stream, std::int64_t, std::int64_t, std::int64_t,        \
                                          std::int64_t, std::int64_t, std::int64_t, const T*, T*); \
  template void adaptive_avg_pool_backward(Stream, std::int64_t, std::int64_t, std::int64_t,       \
                                           std::int64_t, std::int64_t, std::int64_t, const T*, T*, \
                                           bool)
NF_STORED(float);
NF_STORED(bf16);
NF_STORED(f16);
#undef NF_STORED
#undef NF_INDEXED

}  // namespace nf::NF_TARGET
