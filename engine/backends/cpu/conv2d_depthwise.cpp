// Depthwise convolution by direct loops over channels, which lie side by side.
#include <algorithm>
#include <array>
#include <type_traits>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "engine/backends/cpu/vectors.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kLanes = 32;  // channels whose sums stay in registers

// w (C, KH, KW) -> by_tap (KH * KW, C)
template <typename T>
void transpose_filters(const Conv2dProblem& p, const T* w, T* by_tap) {
  const std::int64_t taps = p.kh * p.kw;
  for (std::int64_t c = 0; c < p.c; ++c)
    for (std::int64_t tap = 0; tap < taps; ++tap) by_tap[tap * p.c + c] = w[c * taps + tap];
}

// sum[c] += a[c] * b[c]. The full width is a constant, so that the loop becomes a few registers.
template <typename T>
void multiply_add(const T* a, const T* b, std::int64_t lanes, T* sum) {
  if (lanes == kLanes) {
#pragma omp simd
    for (std::int64_t c = 0; c < kLanes; ++c) sum[c] += a[c] * b[c];
  } else {
#pragma omp simd
    for (std::int64_t c = 0; c < lanes; ++c) sum[c] += a[c] * b[c];
  }
}

std::int64_t row_grain(std::int64_t row_elements) {
  return std::max<std::int64_t>(1, kGrain / 4 / std::max<std::int64_t>(row_elements, 1));
}

int weight_parts(const Conv2dProblem& p, int threads) {
  return chunks(threads, p.n * p.out_h(), row_grain(p.out_w() * p.c));
}

// One output row: y (out_w, C) from the image x (H, W, C).
template <typename T>
void forward_row(const Conv2dProblem& p, const T* x, const T* by_tap, const T* bias,
                 std::int64_t oh, std::int64_t out_w, T* y) {
  const std::int64_t top = oh * p.stride - p.padding;
  for (std::int64_t first = 0; first < p.c; first += kLanes) {
    const std::int64_t lanes = std::min(kLanes, p.c - first);
    for (std::int64_t ow = 0; ow < out_w; ++ow) {
      const std::int64_t left = ow * p.stride - p.padding;
      T sum[kLanes] = {};
      if (bias != nullptr) std::copy_n(bias + first, lanes, sum);
      for (std::int64_t kh = std::max<std::int64_t>(0, -top); kh < std::min(p.kh, p.h - top); ++kh)
        for (std::int64_t kw = std::max<std::int64_t>(0, -left); kw < std::min(p.kw, p.w - left);
             ++kw)
          multiply_add(x + ((top + kh) * p.w + left + kw) * p.c + first,
                       by_tap + (kh * p.kw + kw) * p.c + first, lanes, sum);
      std::copy_n(sum, lanes, y + ow * p.c + first);
    }
  }
}

// One input row: dx (W, C) from the upstream image dy (out_h, out_w, C).
template <typename T>
void input_row(const Conv2dProblem& p, const T* dy, const T* by_tap, std::int64_t ih,
               std::int64_t out_h, std::int64_t out_w, bool accumulate, T* dx) {
  for (std::int64_t first = 0; first < p.c; first += kLanes) {
    const std::int64_t lanes = std::min(kLanes, p.c - first);
    for (std::int64_t iw = 0; iw < p.w; ++iw) {
      T sum[kLanes] = {};
      T* out = dx + iw * p.c + first;
      if (accumulate) std::copy_n(out, lanes, sum);
      for (std::int64_t kh = 0; kh < p.kh; ++kh) {
        const std::int64_t down = ih + p.padding - kh;  // oh * stride
        if (down < 0 || down % p.stride != 0 || down / p.stride >= out_h) continue;
        for (std::int64_t kw = 0; kw < p.kw; ++kw) {
          const std::int64_t right = iw + p.padding - kw;
          if (right < 0 || right % p.stride != 0 || right / p.stride >= out_w) continue;
          multiply_add(dy + (down / p.stride * out_w + right / p.stride) * p.c + first,
                       by_tap + (kh * p.kw + kw) * p.c + first, lanes, sum);
        }
      }
      std::copy_n(sum, lanes, out);
    }
  }
}

// by_tap (KH * KW, C) = or += what one output row contributes.
template <typename T>
void weight_row(const Conv2dProblem& p, const T* x, const T* dy, std::int64_t oh,
                std::int64_t out_w, bool add, T* by_tap) {
  const std::int64_t top = oh * p.stride - p.padding;
  for (std::int64_t first = 0; first < p.c; first += kLanes) {
    const std::int64_t lanes = std::min(kLanes, p.c - first);
    for (std::int64_t kh = 0; kh < p.kh; ++kh) {
      const bool inside = top + kh >= 0 && top + kh < p.h;
      if (add && !inside) continue;
      for (std::int64_t kw = 0; kw < p.kw; ++kw) {
        // Output columns whose input column ow * stride - padding + kw lies in the image.
        const std::int64_t shift = kw - p.padding;
        const std::int64_t begin = shift >= 0 ? 0 : (-shift + p.stride - 1) / p.stride;
        const std::int64_t end =
            shift >= p.w ? 0 : std::min(out_w, (p.w - 1 - shift) / p.stride + 1);
        T sum[kLanes] = {};
        for (std::int64_t ow = begin; inside && ow < end; ++ow)
          multiply_add(x + ((top + kh) * p.w + ow * p.stride + shift) * p.c + first,
                       dy + ow * p.c + first, lanes, sum);
        T* out = by_tap + (kh * p.kw + kw) * p.c + first;
        for (std::int64_t c = 0; c < lanes; ++c) out[c] = add ? out[c] + sum[c] : sum[c];
      }
    }
  }
}

// Output rows of all images together, counted on.
struct Rows {
  std::int64_t begin, end;
};

// Filters three taps wide, whose sums over many rows stay in registers, a row of taps at a time.
constexpr int kTapsWide = 3;
constexpr int kWeightVectors = 2;

// by_tap (KH * 3, C) of `vectors` vectors of channels from `first` on, or of `count` of one vector
// where it is a `part`.
template <int lanes, int vectors, bool part>
void sum_weights(const Conv2dProblem& p, Rows rows, std::int64_t first, std::int64_t count,
                 const float* x, const float* dy, float* by_tap) {
  const std::int64_t out_h = p.out_h(), out_w = p.out_w();
  // Columns ow whose three taps all see the image.
  const std::int64_t inside =
      std::clamp<std::int64_t>((p.padding + p.stride - 1) / p.stride, 0, out_w);
  const std::int64_t room = p.w - kTapsWide + p.padding;
  const std::int64_t beyond =
      room < 0 ? inside : std::clamp<std::int64_t>(room / p.stride + 1, inside, out_w);
  for (std::int64_t kh = 0; kh < p.kh; ++kh) {
    Vector<lanes> sum[kTapsWide][vectors];
    for (int tap = 0; tap < kTapsWide; ++tap)
      for (int v = 0; v < vectors; ++v) sum[tap][v] = Vector<lanes>{};
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const std::int64_t down = row % out_h * p.stride - p.padding + kh;
      if (down < 0 || down >= p.h) continue;
      const float* x_row = x + ((row / out_h * p.h + down) * p.w - p.padding) * p.c + first;
      const float* dy_row = dy + row * out_w * p.c + first;
      const auto add = [&](std::int64_t ow, auto seen) {
        Vector<lanes> upstream[vectors];
        for (int v = 0; v < vectors; ++v)
          load<lanes, part>(dy_row + ow * p.c + v * lanes, upstream[v], count);
        for (int tap = 0; tap < kTapsWide; ++tap) {
          if (!seen(tap)) continue;
          for (int v = 0; v < vectors; ++v) {
            Vector<lanes> from_x;
            load<lanes, part>(x_row + (ow * p.stride + tap) * p.c + v * lanes, from_x, count);
            sum[tap][v] += upstream[v] * from_x;
          }
        }
      };
      const auto at_border = [&](std::int64_t ow) {
        add(ow, [&](int tap) {
          const std::int64_t right = ow * p.stride - p.padding + tap;
          return right >= 0 && right < p.w;
        });
      };
      for (std::int64_t ow = 0; ow < inside; ++ow) at_border(ow);
      for (std::int64_t ow = inside; ow < beyond; ++ow) add(ow, [](int) { return true; });
      for (std::int64_t ow = beyond; ow < out_w; ++ow) at_border(ow);
    }
    for (int tap = 0; tap < kTapsWide; ++tap)
      for (int v = 0; v < vectors; ++v)
        store<lanes, part>(sum[tap][v], by_tap + (kh * kTapsWide + tap) * p.c + first + v * lanes,
                           count);
  }
}

template <int lanes>
void sum_weights(const Conv2dProblem& p, Rows rows, const float* x, const float* dy,
                 float* by_tap) {
  constexpr int wide = kWeightVectors * lanes;
  std::int64_t c = 0;
  for (; c + wide <= p.c; c += wide)
    sum_weights<lanes, kWeightVectors, false>(p, rows, c, lanes, x, dy, by_tap);
  for (; c + lanes <= p.c; c += lanes)
    sum_weights<lanes, 1, false>(p, rows, c, lanes, x, dy, by_tap);
  if (c < p.c) sum_weights<lanes, 1, true>(p, rows, c, p.c - c, x, dy, by_tap);
}

// by_tap (KH * KW, C) of these rows, one at least.
template <typename T>
void weights_of_rows(const Conv2dProblem& p, Rows rows, const T* x, const T* dy, T* by_tap) {
  if constexpr (std::is_same_v<T, float>)
    if (p.kw == kTapsWide)
      return widest([&](auto lanes) { sum_weights<lanes>(p, rows, x, dy, by_tap); });
  const std::int64_t out_h = p.out_h(), out_w = p.out_w();
  vectorised([=] {
    for (std::int64_t row = rows.begin; row < rows.end; ++row)
      weight_row(p, x + row / out_h * p.h * p.w * p.c, dy + row * out_w * p.c, row % out_h, out_w,
                 row > rows.begin, by_tap);
  });
}

}  // namespace

std::int64_t depthwise_conv2d_workspace(const Conv2dProblem& problem, Pass pass, int threads) {
  const std::int64_t filters = problem.kh * problem.kw * problem.c * size_of(problem.dtype);
  return pass == Pass::backward_weight ? weight_parts(problem, threads) * filters : filters;
}

template <typename T>
void DepthwiseConv2d<T>::forward(const T* x, const T* w, const T* bias, T* y) const {
  const Conv2dProblem p = problem;
  const std::int64_t out_h = p.out_h(), out_w = p.out_w();
  T* by_tap = reinterpret_cast<T*>(workspace.data);
  transpose_filters(p, w, by_tap);
  parallel_simd(threads, p.n * out_h, row_grain(out_w * p.c),
                [=](std::int64_t begin, std::int64_t end, int) {
                  for (std::int64_t row = begin; row < end; ++row)
                    forward_row(p, x + row / out_h * p.h * p.w * p.c, by_tap, bias, row % out_h,
                                out_w, y + row * out_w * p.c);
                });
}

template <typename T>
void DepthwiseConv2d<T>::backward_input(const T* dy, const T* w, T* dx, GradMode mode) const {
  const Conv2dProblem p = problem;
  const std::int64_t out_h = p.out_h(), out_w = p.out_w();
  T* by_tap = reinterpret_cast<T*>(workspace.data);
  transpose_filters(p, w, by_tap);
  const bool accumulate = mode == GradMode::accumulate;
  parallel_simd(threads, p.n * p.h, row_grain(p.w * p.c),
                [=](std::int64_t begin, std::int64_t end, int) {
                  for (std::int64_t row = begin; row < end; ++row)
                    input_row(p, dy + row / p.h * out_h * out_w * p.c, by_tap, row % p.h, out_h,
                              out_w, accumulate, dx + row * p.w * p.c);
                });
}

template <typename T>
void DepthwiseConv2d<T>::backward_weight(const T* x, const T* dy, T* dw, GradMode mode) const {
  const Conv2dProblem p = problem;
  const std::int64_t taps = p.kh * p.kw;
  T* partial = reinterpret_cast<T*>(workspace.data);  // (chunks, taps, C)
  const std::int64_t filters = taps * p.c;
  parallel_for(threads, p.n * p.out_h(), row_grain(p.out_w() * p.c),
               [=](std::int64_t begin, std::int64_t end, int chunk) {
                 weights_of_rows(p, Rows{begin, end}, x, dy, partial + chunk * filters);
               });
  const int parts = weight_parts(p, threads);
  for (std::int64_t c = 0; c < p.c; ++c)
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      T sum = mode == GradMode::accumulate ? dw[c * taps + tap] : T{0};
      for (int part = 0; part < parts; ++part) sum += partial[part * filters + tap * p.c + c];
      dw[c * taps + tap] = sum;
    }
}

template struct DepthwiseConv2d<float>;
template struct DepthwiseConv2d<double>;

}  // namespace nf::cpu
