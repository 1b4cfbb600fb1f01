// Winograd's convolution F(4x4, 3x3): filters and patches become points (winograd.h), and at each
// of the 36 points a matrix product over channels, a quarter of the direct convolution's, does the
// rest. Each result is one sum whose order does not depend on the number of threads.
#include <algorithm>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/conv2d_tiles.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "engine/backends/cpu/vectors.h"
#include "engine/backends/cpu/winograd.h"
#include "engine/backends/cpu/zeros.h"

namespace nf::cpu {
namespace {

using winograd::kOutputs;
using winograd::kPatch;
using winograd::kPoints;
using winograd::kTaps;

// Points of filters cost time and memory: at most so many for each element of the maps.
constexpr std::int64_t kMostFilters = 5;
// Tiles reach beyond maps that are no multiple of theirs: at most so many times the outputs.
constexpr double kMostWaste = 1.4;
// On fewer the transforms outweigh what they save.
constexpr std::int64_t kLeastChannels = 32;
// Channels come in whole vectors of every machine.
constexpr std::int64_t kChannels = 16;
// Floats of a thread's points of patches and of outputs, which its own cache is to hold.
constexpr std::int64_t kPointFloats = 72 << 10;
// Between one point's floats and the next one's: 36 streams a power of two apart would push each
// other out of the cache.
constexpr std::int64_t kGap = 16;

// A convolution of stride 1 from one map to another: the problem's own, or, with filters turned
// about, the one from the output's gradient to the input's.
struct MapPass {
  std::int64_t n, in_h, in_w, in_c, out_h, out_w, out_c, padding;

  std::int64_t tiles_down() const { return (out_h + kOutputs - 1) / kOutputs; }
  std::int64_t tiles_right() const { return (out_w + kOutputs - 1) / kOutputs; }
  std::int64_t tiles() const { return n * tiles_down() * tiles_right(); }
  /// From a point of all filters to the next.
  std::int64_t filters() const { return in_c * out_c + kGap; }
  /// Tiles that a thread transforms at a time: a multiple of a product's rows, or all.
  std::int64_t group() const {
    const std::int64_t most = kPointFloats / (kPoints * (in_c + out_c));
    const std::int64_t rows = std::clamp<std::int64_t>(most / kTileRows, 1, 8);
    return std::min(rows * kTileRows, tiles());
  }
  std::int64_t groups() const { return (tiles() + group() - 1) / group(); }
};

MapPass forward_map(const Conv2dProblem& p) {
  return {p.n, p.h, p.w, p.c, p.out_h(), p.out_w(), p.o, p.padding};
}

MapPass backward_map(const Conv2dProblem& p) {
  return {p.n, p.out_h(), p.out_w(), p.o, p.h, p.w, p.c, kTaps - 1 - p.padding};
}

MapPass map_of(const Conv2dProblem& p, Pass pass) {
  return pass == Pass::backward_input ? backward_map(p) : forward_map(p);
}

// A tile of outputs: its image, and where it begins.
struct Place {
  std::int64_t image, row, column;

  Place(const MapPass& m, std::int64_t tile)
      : image(tile / (m.tiles_down() * m.tiles_right())),
        row(tile / m.tiles_right() % m.tiles_down() * kOutputs),
        column(tile % m.tiles_right() * kOutputs) {}
};

// The workspace: points of all filters, then for each thread points of a group's patches and
// outputs.
struct Parts {
  float *filters, *patches, *outputs;
  int buffers;  // of a group each: for as many threads as have one
  std::int64_t bytes;

  Parts(const MapPass& m, int threads, Workspace workspace)
      : buffers(chunks(threads, m.groups(), 1)) {
    Sections sections(workspace);
    filters = sections.take<float>(kPoints * m.filters());
    patches = sections.take<float>(buffers * kPoints * (m.group() * m.in_c + kGap));
    outputs = sections.take<float>(buffers * kPoints * (m.group() * m.out_c + kGap));
    bytes = sections.bytes();
  }
};

// Points of filters lie point by point in panels of a tile's columns, in each input channel by
// input channel: as the products read them.
template <int lanes>
std::int64_t place_in_panels(const MapPass& m, std::int64_t in, std::int64_t out) {
  constexpr std::int64_t most = kTileVectors<lanes> * lanes;
  const std::int64_t whole = m.out_c / most * most;
  const std::int64_t width = out < whole ? most : m.out_c - whole;
  const std::int64_t panel = out < whole ? out / most * most : whole;
  return panel * m.in_c + in * width + out - panel;
}

// Filters of kChannels input and `lanes` output channels: [tap][in][out].
template <int lanes>
using Taps = float[kTaps * kTaps][kChannels][lanes];

// w (O, 3, 3, C) seen by the pass: from C to O, or from O to C with the taps in reverse.
template <int lanes>
void read_taps(const MapPass& m, bool backward, const float* w, std::int64_t in, std::int64_t out,
               Taps<lanes>& taps) {
  constexpr std::int64_t count = kTaps * kTaps;
  for (std::int64_t tap = 0; tap < count; ++tap)
    if (backward) {
      for (std::int64_t i = 0; i < kChannels; ++i)
        for (int o = 0; o < lanes; ++o)
          taps[tap][i][o] = w[((in + i) * count + count - 1 - tap) * m.out_c + out + o];
    } else {
      for (int o = 0; o < lanes; ++o)
        for (std::int64_t i = 0; i < kChannels; ++i)
          taps[tap][i][o] = w[((out + o) * count + tap) * m.in_c + in + i];
    }
}

template <int lanes>
void transform_filters(const MapPass& m, bool backward, const float* w, std::int64_t out,
                       float* filters) {
  alignas(64) Taps<lanes> taps;
  for (std::int64_t in = 0; in < m.in_c; in += kChannels) {
    read_taps<lanes>(m, backward, w, in, out, taps);
    for (std::int64_t i = 0; i < kChannels; ++i) {
      float* to = filters + place_in_panels<lanes>(m, in + i, out);
      winograd::in_both_directions<winograd::TapsToPoints, lanes>(
          [&](int row, int column, Vector<lanes>& tap) {
            load<lanes>(taps[row * kTaps + column][i], tap);
          },
          [&](int row, int column, const Vector<lanes>& point) {
            store<lanes>(point, to + (row * kPatch + column) * m.filters());
          });
    }
  }
}

void transform_filters(const MapPass& m, bool backward, int threads, const float* w,
                       float* filters) {
  parallel_for(threads, m.out_c / kChannels, 1, [&](std::int64_t begin, std::int64_t end, int) {
    widest([&](auto lanes) {
      for (std::int64_t out = begin * kChannels; out < end * kChannels; out += lanes)
        transform_filters<lanes>(m, backward, w, out, filters);
    });
  });
}

// A map of images to read tiles from: its sizes, and how far before a tile's place what is read for
// it begins.
struct Source {
  const float* values;  // (N, h, w, c)
  std::int64_t h, w, c, before;
};

// Points of `count` tiles, of what the transform takes for each: (point, tile, channel), `group`
// tiles from a point to the next.
template <typename Transform, int lanes>
void transform_tiles(const MapPass& m, const Source& x, std::int64_t first, std::int64_t count,
                     std::int64_t group, float* points) {
  constexpr int size = Transform::from;
  for (std::int64_t tile = 0; tile < count; ++tile) {
    const Place place(m, first + tile);
    const float* pixels[size][size];
    for (int i = 0; i < size; ++i)
      for (int j = 0; j < size; ++j) {
        const std::int64_t row = place.row + i - x.before, column = place.column + j - x.before;
        const bool inside = row >= 0 && row < x.h && column >= 0 && column < x.w;
        pixels[i][j] =
            inside ? x.values + ((place.image * x.h + row) * x.w + column) * x.c : kZeros;
      }
    for (std::int64_t c = 0; c < x.c; c += lanes)
      winograd::in_both_directions<Transform, lanes>(
          [&](int i, int j, Vector<lanes>& value) { load<lanes>(pixels[i][j] + c, value); },
          [&](int i, int j, const Vector<lanes>& point) {
            store<lanes>(point, points + (i * kPatch + j) * (group * x.c + kGap) + tile * x.c + c);
          });
  }
}

// The patches that a tile's outputs see.
template <int lanes>
void transform_patches(const MapPass& m, const float* x, std::int64_t first, std::int64_t count,
                       std::int64_t group, float* patches) {
  transform_tiles<winograd::InputsToPoints, lanes>(m, {x, m.in_h, m.in_w, m.in_c, m.padding}, first,
                                                   count, group, patches);
}

// A tile's outputs' own gradients.
template <int lanes>
void transform_gradients(const MapPass& m, const float* dy, std::int64_t first, std::int64_t count,
                         std::int64_t group, float* gradients) {
  transform_tiles<winograd::OutputsToPoints, lanes>(m, {dy, m.out_h, m.out_w, m.out_c, 0}, first,
                                                    count, group, gradients);
}

template <int lanes>
void multiply_points(const MapPass& m, const float* patches, const float* filters,
                     std::int64_t count, std::int64_t group, float* outputs) {
  for (int point = 0; point < kPoints; ++point) {
    const float* v = patches + point * (group * m.in_c + kGap);
    const float* u = filters + point * m.filters();
    float* to = outputs + point * (group * m.out_c + kGap);
    over_channels<lanes>(0, m.out_c, [&](std::int64_t c, auto width) {
      using W = decltype(width);
      in_parts<kTileRows>(count, [&](std::int64_t tile, auto rows) {
        sum_products<rows>(width, v + tile * m.in_c, m.in_c, 1, u + c * m.in_c, W::vectors * lanes,
                           m.in_c, false, to + tile * m.out_c + c, m.out_c);
      });
    });
  }
}

// A residual may be what the output holds already, to add to it.
template <int lanes>
void finish_outputs(const MapPass& m, const Finish& finish, const float* outputs,
                    std::int64_t first, std::int64_t count, std::int64_t group, float* y) {
  for (std::int64_t tile = 0; tile < count; ++tile) {
    const Place place(m, first + tile);
    const std::int64_t down = std::min<std::int64_t>(kOutputs, m.out_h - place.row);
    const std::int64_t right = std::min<std::int64_t>(kOutputs, m.out_w - place.column);
    const std::int64_t corner =
        ((place.image * m.out_h + place.row) * m.out_w + place.column) * m.out_c;
    for (std::int64_t c = 0; c < m.out_c; c += lanes) {
      Vector<lanes> bias{};
      if (finish.bias != nullptr) load<lanes>(finish.bias + c, bias);
      winograd::in_both_directions<winograd::PointsToOutputs, lanes>(
          [&](int i, int j, Vector<lanes>& point) {
            load<lanes>(outputs + (i * kPatch + j) * (group * m.out_c + kGap) + tile * m.out_c + c,
                        point);
          },
          [&](int i, int j, const Vector<lanes>& value) {
            if (i >= down || j >= right) return;
            const std::int64_t at = corner + (i * m.out_w + j) * m.out_c + c;
            Vector<lanes> out = value;
            finish_sum<lanes>(finish, bias, at, out);
            store<lanes>(out, y + at);
          });
    }
  }
}

void convolve(const MapPass& m, bool backward, int threads, Workspace workspace, const float* x,
              const float* w, const Finish& finish, float* y) {
  const Parts parts(m, threads, workspace);
  transform_filters(m, backward, threads, w, parts.filters);
  const std::int64_t group = m.group();
  parallel_for(threads, m.groups(), 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* patches = parts.patches + thread * kPoints * (group * m.in_c + kGap);
    float* outputs = parts.outputs + thread * kPoints * (group * m.out_c + kGap);
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = g * group, count = std::min(group, m.tiles() - first);
      widest([&](auto lanes) {
        transform_patches<lanes>(m, x, first, count, group, patches);
        multiply_points<lanes>(m, patches, parts.filters, count, group, outputs);
        finish_outputs<lanes>(m, finish, outputs, first, count, group, y);
      });
    }
  });
}

// filters[point] (in_c, out_c) = or += patches^T gradients, for points begin to end.
template <int lanes>
void sum_over_tiles(const MapPass& m, const float* patches, const float* gradients,
                    std::int64_t count, std::int64_t group, std::int64_t begin, std::int64_t end,
                    bool add, float* filters) {
  for (std::int64_t point = begin; point < end; ++point) {
    const float* v = patches + point * (group * m.in_c + kGap);
    const float* u = gradients + point * (group * m.out_c + kGap);
    float* to = filters + point * m.filters();
    over_channels<lanes>(0, m.out_c, [&](std::int64_t out, auto width) {
      in_parts<kTileRows>(m.in_c, [&](std::int64_t in, auto rows) {
        sum_products<rows>(width, v + in, 1, m.in_c, u + out, m.out_c, count, add,
                           to + in * m.out_c + out, m.out_c);
      });
    });
  }
}

// dw (O, 3, 3, C) = or += of the points' gradients, for `lanes` output channels.
template <int lanes>
void finish_filters(const MapPass& m, const float* filters, std::int64_t out, bool accumulate,
                    float* dw) {
  alignas(64) Taps<lanes> taps;
  for (std::int64_t in = 0; in < m.in_c; in += kChannels) {
    for (std::int64_t i = 0; i < kChannels; ++i)
      winograd::in_both_directions<winograd::PointsToTaps, lanes>(
          [&](int row, int column, Vector<lanes>& point) {
            load<lanes>(filters + (row * kPatch + column) * m.filters() + (in + i) * m.out_c + out,
                        point);
          },
          [&](int row, int column, const Vector<lanes>& tap) {
            store<lanes>(tap, taps[row * kTaps + column][i]);
          });
    for (int o = 0; o < lanes; ++o)
      for (int tap = 0; tap < kTaps * kTaps; ++tap) {
        float* to = dw + ((out + o) * kTaps * kTaps + tap) * m.in_c + in;
        for (std::int64_t i = 0; i < kChannels; ++i)
          to[i] = accumulate ? to[i] + taps[tap][i][o] : taps[tap][i][o];
      }
  }
}

}  // namespace

bool winograd_conv2d_possible(const Conv2dProblem& p) {
  return p.n > 0 && p.out_h() > 0 && p.out_w() > 0 && p.dtype == DType::f32 && p.groups == 1 &&
         p.kh == kTaps && p.kw == kTaps && p.stride == 1 && p.padding < kTaps &&
         p.c % kChannels == 0 && p.o % kChannels == 0 && std::max(p.c, p.o) <= kMostZeros;
}

// Measured with two threads on a Zen 5 beside the direct path and oneDNN, which reorders weights,
// on the layers of VGG-16 and ResNet-18, at full and half width and batches 1, 4, 16 and 64: where
// it is allowed here, it took between 0.3 and 0.9 of their time, half of it mostly.
bool winograd_conv2d_pays(const Conv2dProblem& p, Pass pass) {
  if (!winograd_conv2d_possible(p) || std::min(p.c, p.o) < kLeastChannels) return false;
  const MapPass m = map_of(p, pass);
  const std::int64_t outputs = m.n * m.out_h * m.out_w;
  const std::int64_t computed = m.tiles() * kOutputs * kOutputs;
  if (static_cast<double>(computed) > kMostWaste * static_cast<double>(outputs)) return false;
  const std::int64_t maps = m.n * m.in_h * m.in_w * m.in_c + outputs * m.out_c;
  return kPoints * m.filters() <= kMostFilters * maps;
}

std::int64_t winograd_conv2d_workspace(const Conv2dProblem& p, Pass pass, int threads) {
  return Parts(map_of(p, pass), threads, {}).bytes;
}

void WinogradConv2d::forward(const float* x, const float* w, const float* bias,
                             const float* residual, float* y) const {
  convolve(forward_map(problem), false, threads, workspace, x, w,
           {bias, residual, problem.activation}, y);
}

void WinogradConv2d::backward_input(const float* dy, const float* w, float* dx,
                                    GradMode mode) const {
  convolve(backward_map(problem), true, threads, workspace, dy, w,
           {nullptr, mode == GradMode::accumulate ? dx : nullptr, Activation::none}, dx);
}

void WinogradConv2d::backward_weight(const float* x, const float* dy, float* dw,
                                     GradMode mode) const {
  const MapPass m = forward_map(problem);
  const Parts parts(m, threads, workspace);
  const std::int64_t group = std::min(parts.buffers * m.group(), m.tiles());
  for (std::int64_t first = 0; first < m.tiles(); first += group) {
    const std::int64_t count = std::min(group, m.tiles() - first);
    parallel_for(threads, count, 1, [&](std::int64_t begin, std::int64_t end, int) {
      widest([&](auto lanes) {
        transform_patches<lanes>(m, x, first + begin, end - begin, group,
                                 parts.patches + begin * m.in_c);
        transform_gradients<lanes>(m, dy, first + begin, end - begin, group,
                                   parts.outputs + begin * m.out_c);
      });
    });
    parallel_for(threads, kPoints, 1, [&](std::int64_t begin, std::int64_t end, int) {
      widest([&](auto lanes) {
        sum_over_tiles<lanes>(m, parts.patches, parts.outputs, count, group, begin, end, first > 0,
                              parts.filters);
      });
    });
  }
  parallel_for(threads, m.out_c / kChannels, 1, [&](std::int64_t begin, std::int64_t end, int) {
    widest([&](auto lanes) {
      for (std::int64_t out = begin * kChannels; out < end * kChannels; out += lanes)
        finish_filters<lanes>(m, parts.filters, out, mode == GradMode::accumulate, dw);
    });
  });
}

}  // namespace nf::cpu
