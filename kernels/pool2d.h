// Pooling over square windows, and adaptive average pooling. Tensors are NHWC.
//
// Sums and averages are taken in f32 and rounded to T once. Templates exist for float, bf16, f16.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

/// x (n, h, w, c), y (n, out_h, out_w, c). Window o starts at row o * stride - padding.
struct PoolWindows {
  std::int64_t n = 0, h = 0, w = 0, c = 0;
  std::int64_t out_h = 0, out_w = 0;
  std::int64_t kernel = 1, stride = 1, padding = 0;
  bool count_include_pad = true;  ///< averages: cells of the padding count as zeros
};

/// y: the largest cell of each window; NaN wins, the first of equals does. `argmax` (shape of y,
/// may be null): its index in the window, row by row, padding counted. Index: uint8_t or int32_t.
/// Must move x, y and argmax once each. Moves that where a window's rows stay in the cache;
/// overlapping windows load x (kernel / stride)^2 times.
template <typename T, typename Index>
void max_pool_forward(Stream stream, const PoolWindows& windows, const T* x, T* y, Index* argmax);

/// dx: for each cell the sum of dy over the windows whose maximum it is; added to dx where
/// `accumulate`.
/// Must move dx, dy and argmax once each, and old dx where it accumulates. Moves that where dy and
/// argmax stay in the cache; they are loaded by each of the kernel^2 cells of their window.
template <typename T, typename Index>
void max_pool_backward(Stream stream, const PoolWindows& windows, const Index* argmax, const T* dy,
                       T* dx, bool accumulate);

/// y: the mean of each window.
/// Must move x and y once. Moves that where a window's rows stay in the cache; overlapping windows
/// load x (kernel / stride)^2 times.
template <typename T>
void avg_pool_forward(Stream stream, const PoolWindows& windows, const T* x, T* y);

/// Must move dx and dy once, and old dx where it accumulates. Moves that where dy stays in the
/// cache; it is loaded by each of the kernel^2 cells of its window.
template <typename T>
void avg_pool_backward(Stream stream, const PoolWindows& windows, const T* dy, T* dx,
                       bool accumulate);

/// Cell i of y (n, out_h, out_w, c) is the mean of rows floor(i * h / out_h) to
/// ceil((i + 1) * h / out_h) - 1 of x (n, h, w, c), and of columns likewise.
/// Must move x and y once, and does where out divides in; cells that share rows load them again.
template <typename T>
void adaptive_avg_pool_forward(Stream stream, std::int64_t n, std::int64_t h, std::int64_t w,
                               std::int64_t c, std::int64_t out_h, std::int64_t out_w, const T* x,
                               T* y);

/// dy (n, out_h, out_w, c), dx (n, h, w, c).
/// Must move dx and dy once, and old dx where it accumulates. Moves that where dy stays in the
/// cache; it is loaded by each pixel of its cell.
template <typename T>
void adaptive_avg_pool_backward(Stream stream, std::int64_t n, std::int64_t h, std::int64_t w,
                                std::int64_t c, std::int64_t out_h, std::int64_t out_w, const T* dy,
                                T* dx, bool accumulate);

}  // namespace nf::NF_TARGET
