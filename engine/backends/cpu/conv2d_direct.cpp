// Convolution on the weights as they lie, for few output cells and many weights: nothing is
// gathered or reordered, and taps that see only padding cost nothing. Each result is one sum whose
// order does not depend on the number of threads.
#include <algorithm>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/conv2d_tiles.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/vectors.h"

namespace nf::cpu {
namespace {

// Channels that a thread owns of the input's gradient.
constexpr std::int64_t kOwnedChannels = 64;
// Output channels between two visits to the same cells of the input's gradient.
constexpr std::int64_t kOutsPerVisit = 64;
// Filters that stay near the core while the images pass by, and elements of a patch that stay
// nearer while the filters do.
constexpr std::int64_t kFiltersAtOnce = 16;
constexpr std::int64_t kRun = 512;

// A tile of inner products, which keep a vector each.
template <int lanes>
constexpr int kDotImages = lanes == 16 ? 6 : 3;
constexpr int kDotFilters = 4;

// Taps of a kernel of `taps` that lie inside `size` pixels for output position `out`.
Range taps_inside(const Conv2dProblem& p, std::int64_t out, std::int64_t taps, std::int64_t size) {
  const std::int64_t first = out * p.stride - p.padding;
  const std::int64_t begin = std::clamp<std::int64_t>(-first, 0, taps);
  return {begin, std::clamp<std::int64_t>(size - first, begin, taps)};
}

// Of `outs` output positions those whose pixel under `tap` lies inside `size` pixels.
Range outs_inside(const Conv2dProblem& p, std::int64_t tap, std::int64_t outs, std::int64_t size) {
  const std::int64_t shift = tap - p.padding;
  const std::int64_t begin = shift >= 0 ? 0 : (-shift + p.stride - 1) / p.stride;
  const std::int64_t end = size <= shift ? 0 : (size - 1 - shift) / p.stride + 1;
  return {std::min(begin, outs), std::clamp(end, std::min(begin, outs), outs)};
}

// First of `taps` under which one of `outs` output positions, one at least, sees pixel `at`; `taps`
// where none does.
std::int64_t first_tap(const Conv2dProblem& p, std::int64_t at, std::int64_t taps,
                       std::int64_t outs) {
  const std::int64_t place = at + p.padding;  // under tap 0
  return std::min(std::max(place % p.stride, place - (outs - 1) * p.stride), taps);
}

// What the passes know of their operands: elements from one image, row, … to the next.
struct Extents {
  const Conv2dProblem p;
  std::int64_t out_h = p.out_h(), out_w = p.out_w();
  std::int64_t x_row = p.w * p.c, x_image = p.h * x_row;
  std::int64_t y_row = out_w * p.o, y_image = out_h * y_row;
  std::int64_t filter_row = p.kw * p.c, filter = p.kh * filter_row;
};

template <int lanes>
void forward(const Extents& e, Range filters, const float* x, const float* w, const float* bias,
             float* y) {
  const Conv2dProblem& p = e.p;
  constexpr int most = kDotImages<lanes>;
  alignas(64) float sums[kFiltersAtOnce * most * lanes];
  for (std::int64_t first = filters.begin; first < filters.end; first += kFiltersAtOnce) {
    const std::int64_t last = std::min(first + kFiltersAtOnce, filters.end);
    for (std::int64_t oh = 0; oh < e.out_h; ++oh)
      for (std::int64_t ow = 0; ow < e.out_w; ++ow) {
        const Range down = taps_inside(p, oh, p.kh, p.h), right = taps_inside(p, ow, p.kw, p.w);
        const float* image = x + (oh * p.stride - p.padding) * e.x_row +
                             (ow * p.stride - p.padding + right.begin) * p.c;
        float* out = y + (oh * e.out_w + ow) * p.o;
        in_parts<most>(p.n, [&](std::int64_t n, auto images) {
          // fn(o, Constant<outs>{}, its sums) for tiles that cover the filters.
          const auto over_filters = [&](const auto& fn) {
            std::int64_t o = first;
            for (; o + kDotFilters <= last; o += kDotFilters)
              fn(o, Constant<kDotFilters>{}, sums + (o - first) * images * lanes);
            for (; o < last; ++o) fn(o, Constant<1>{}, sums + (o - first) * images * lanes);
          };
          std::fill_n(sums, (last - first) * images * lanes, 0.0F);
          const std::int64_t run = right.count() * p.c;
          for (std::int64_t kh = down.begin; kh < down.end; ++kh)
            for (std::int64_t k = 0; k < run; k += kRun)
              over_filters([&](std::int64_t o, auto outs, float* at) {
                add_dots<lanes, outs, images>(
                    w + o * e.filter + kh * e.filter_row + right.begin * p.c + k, e.filter,
                    image + n * e.x_image + kh * e.x_row + k, e.x_image, std::min(kRun, run - k),
                    at);
              });
          over_filters([&](std::int64_t o, auto outs, const float* at) {
            finish_dots<lanes, outs, images>(at, bias == nullptr ? nullptr : bias + o,
                                             out + n * e.y_image + o, e.y_image);
          });
        });
      }
  }
}

// Zeros where no tap sees the input.
void clear_unseen(const Extents& e, Range channels, float* dx) {
  const Conv2dProblem& p = e.p;
  for (std::int64_t ih = 0; ih < p.h; ++ih) {
    const bool row_seen = first_tap(p, ih, p.kh, e.out_h) < p.kh;
    for (std::int64_t iw = 0; iw < p.w; ++iw) {
      if (row_seen && first_tap(p, iw, p.kw, e.out_w) < p.kw) continue;
      float* cell = dx + ih * e.x_row + iw * p.c + channels.begin;
      for (std::int64_t n = 0; n < p.n; ++n)
        std::fill_n(cell + n * e.x_image, channels.count(), 0.0F);
    }
  }
}

template <int lanes>
void backward_input(const Extents& e, Range channels, const float* dy, const float* w,
                    bool accumulate, float* dx) {
  const Conv2dProblem& p = e.p;
  if (!accumulate) clear_unseen(e, channels, dx);
  alignas(64) float packed[kOutsPerVisit * kTileVectors<lanes> * lanes];
  for (std::int64_t first = 0; first < p.o; first += kOutsPerVisit) {
    const std::int64_t outs = std::min(kOutsPerVisit, p.o - first);
    for (std::int64_t kh = 0; kh < p.kh; ++kh)
      for (std::int64_t kw = 0; kw < p.kw; ++kw) {
        const Range down = outs_inside(p, kh, e.out_h, p.h);
        const Range right = outs_inside(p, kw, e.out_w, p.w);
        if (down.count() == 0 || right.count() == 0) continue;
        const float* taps = w + first * e.filter + kh * e.filter_row + kw * p.c;
        over_channels<lanes>(channels.begin, channels.end, [&](std::int64_t c, auto width) {
          using W = decltype(width);
          // Side by side they don't push each other out of the cache.
          for (std::int64_t o = 0; o < outs; ++o)
            for (int v = 0; v < W::vectors; ++v) {
              Vector<W::lanes> held;
              load<W::lanes, W::part>(taps + o * e.filter + c + v * W::lanes, held, width.count);
              store<W::lanes>(held, packed + (o * W::vectors + v) * W::lanes);
            }
          for (std::int64_t oh = down.begin; oh < down.end; ++oh) {
            const std::int64_t ih = oh * p.stride - p.padding + kh;
            const bool first_row =
                !accumulate && first == 0 && kh == first_tap(p, ih, p.kh, e.out_h);
            for (std::int64_t ow = right.begin; ow < right.end; ++ow) {
              const std::int64_t iw = ow * p.stride - p.padding + kw;
              const bool first_visit = first_row && kw == first_tap(p, iw, p.kw, e.out_w);
              const float* upstream = dy + oh * e.y_row + ow * p.o + first;
              float* to = dx + ih * e.x_row + iw * p.c + c;
              in_parts<kTileRows>(p.n, [&](std::int64_t n, auto images) {
                sum_products<images>(width, upstream + n * e.y_image, e.y_image, 1, packed,
                                     W::vectors * W::lanes, outs, !first_visit, to + n * e.x_image,
                                     e.x_image);
              });
            }
          }
        });
      }
  }
}

template <int lanes>
void backward_weight(const Extents& e, Range filters, const float* x, const float* dy,
                     bool accumulate, float* dw) {
  const Conv2dProblem& p = e.p;
  in_parts<kTileRows>(filters.count(), [&](std::int64_t begin, auto outs) {
    const std::int64_t o = filters.begin + begin;
    for (std::int64_t kh = 0; kh < p.kh; ++kh)
      for (std::int64_t kw = 0; kw < p.kw; ++kw) {
        const Range down = outs_inside(p, kh, e.out_h, p.h);
        const Range right = outs_inside(p, kw, e.out_w, p.w);
        const Cells cells{{down.count(), right.count(), p.n},
                          {p.stride * e.x_row, p.stride * p.c, e.x_image},
                          {e.y_row, p.o, e.y_image}};
        const float* image = x + (down.begin * p.stride - p.padding + kh) * e.x_row +
                             (right.begin * p.stride - p.padding + kw) * p.c;
        const float* upstream = dy + down.begin * e.y_row + right.begin * p.o + o;
        float* out = dw + o * e.filter + kh * e.filter_row + kw * p.c;
        over_channels<lanes>(0, p.c, [&](std::int64_t c, auto width) {
          sum_over_cells<outs>(width, cells, image + c, upstream, accumulate, out + c, e.filter);
        });
      }
  });
}

// Output cells that a weight meets on average: padding meets none.
double cells_per_weight(const Conv2dProblem& p) {
  std::int64_t down = 0, right = 0;
  for (std::int64_t kh = 0; kh < p.kh; ++kh) down += outs_inside(p, kh, p.out_h(), p.h).count();
  for (std::int64_t kw = 0; kw < p.kw; ++kw) right += outs_inside(p, kw, p.out_w(), p.w).count();
  return static_cast<double>(p.n * down * right) / static_cast<double>(p.kh * p.kw);
}

}  // namespace

// Measured beside oneDNN on the layers of VGG-16, ResNet-18 and MobileNetV1, whose 1x1 ones have a
// path of their own since, at batches 1, 4, 16 and 64: what reordering the weights costs it,
// against products that are faster where cells are many.
bool direct_conv2d_pays(const Conv2dProblem& p, Pass pass) {
  // Vectors run along the input's channels.
  if (p.dtype != DType::f32 || p.groups != 1 || p.c < 32) return false;
  const std::int64_t weights = p.o * p.kh * p.kw * p.c;
  if (weights < 1 << 15) return false;
  const double cells = cells_per_weight(p);
  const bool few_images = p.n < 4;  // which leave a tile's registers unused
  switch (pass) {
    case Pass::forward:
      if (weights >= 1 << 20) return cells <= 768;
      return weights >= 1 << 17 && cells <= (few_images ? 16 : 64);
    case Pass::backward_input:
      return cells <= (few_images ? 64 : 256);
    default:
      return cells <= (weights >= 1 << 18 ? 1024 : 256);
  }
}

// Measured likewise, beside oneDNN on weights in its own layout.
bool direct_conv2d_beats_layouts(const Conv2dProblem& p) {
  return p.n >= 4 && p.o * p.kh * p.kw * p.c >= 1 << 21 && direct_conv2d_pays(p, Pass::forward);
}

void DirectConv2d::forward(const float* x, const float* w, const float* bias, float* y) const {
  const Extents e{problem};
  parallel_for(threads, (e.p.o + kDotFilters - 1) / kDotFilters, 1,
               [&](std::int64_t begin, std::int64_t end, int) {
                 const Range filters{begin * kDotFilters, std::min(end * kDotFilters, e.p.o)};
                 widest([&](auto lanes) { cpu::forward<lanes>(e, filters, x, w, bias, y); });
               });
}

void DirectConv2d::backward_input(const float* dy, const float* w, float* dx, GradMode mode) const {
  const Extents e{problem};
  parallel_for(
      threads, (e.p.c + kOwnedChannels - 1) / kOwnedChannels, 1,
      [&](std::int64_t begin, std::int64_t end, int) {
        const Range channels{begin * kOwnedChannels, std::min(end * kOwnedChannels, e.p.c)};
        widest([&](auto lanes) {
          cpu::backward_input<lanes>(e, channels, dy, w, mode == GradMode::accumulate, dx);
        });
      });
}

void DirectConv2d::backward_weight(const float* x, const float* dy, float* dw,
                                   GradMode mode) const {
  const Extents e{problem};
  const bool accumulate = mode == GradMode::accumulate;
  parallel_for(
      threads, (e.p.o + kTileRows - 1) / kTileRows, 1,
      [&](std::int64_t begin, std::int64_t end, int) {
        const Range filters{begin * kTileRows, std::min(end * kTileRows, e.p.o)};
        widest([&](auto lanes) { cpu::backward_weight<lanes>(e, filters, x, dy, accumulate, dw); });
      });
}

}  // namespace nf::cpu
