// Convolutions of 1x1 filters and stride 1: products of output cells with filters. A panel of
// filters at a time is copied to where a tile of results reads it from one end to the other; the
// cells stay where they are. Each result is one sum whose order does not depend on the number of
// threads.
#include <algorithm>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/conv2d_tiles.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/vectors.h"

namespace nf::cpu {
namespace {

// Channels that a sum takes in between two visits to its tile: their panel stays near the core.
constexpr std::int64_t kDepth = 256;
// Result's channels that threads share out: whole tiles of every machine.
constexpr std::int64_t kOwnedChannels = 64;

// How filters lie: a row of (outs) for each channel that is summed over, or the other way round.
enum class Filters { depth_by_outs, outs_by_depth };

// out (rows, outs) = or += in (rows, depth) by filters
struct Product {
  std::int64_t rows, depth, outs;
  const float* in;
  std::int64_t in_row, in_step;  // from a row to the next, and within a row
  const float* filters;
  bool add;
  float* out;
  Finish finish{};
};

// Four rows of four floats, `row` apart, as columns `to_row` apart.
void transpose_4x4(const float* from, std::int64_t row, float* to, std::int64_t to_row) {
  Vector<4> a, b, c, d;
  load<4>(from, a);
  load<4>(from + row, b);
  load<4>(from + 2 * row, c);
  load<4>(from + 3 * row, d);
  const Vector<4> ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Vector<4> ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Vector<4> cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Vector<4> cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store<4>(__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), to);
  store<4>(__builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7), to + to_row);
  store<4>(__builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), to + 2 * to_row);
  store<4>(__builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7), to + 3 * to_row);
}

// panel[p][k] = filter of channel `first` + p to result `out` + k, zeros beyond the width.
template <Filters kLie, typename W>
void pack(const Product& t, std::int64_t first, std::int64_t depth, std::int64_t out, W width,
          float* panel) {
  constexpr int lanes = W::lanes, columns = W::vectors * lanes;
  if constexpr (kLie == Filters::depth_by_outs) {
    for (std::int64_t p = 0; p < depth; ++p)
      for (int v = 0; v < W::vectors; ++v) {
        Vector<lanes> held;
        load<lanes, W::part>(t.filters + (first + p) * t.outs + out + v * lanes, held, width.count);
        store<lanes>(held, panel + p * columns + v * lanes);
      }
  } else {
    const float* from = t.filters + out * t.depth + first;
    const std::int64_t outs = W::part ? width.count : columns;
    if constexpr (W::part) std::fill_n(panel, depth * columns, 0.0F);
    const std::int64_t whole_outs = outs / 4 * 4, whole_depth = depth / 4 * 4;
    for (std::int64_t k = 0; k < whole_outs; k += 4)
      for (std::int64_t p = 0; p < whole_depth; p += 4)
        transpose_4x4(from + k * t.depth + p, t.depth, panel + p * columns + k, columns);
    for (std::int64_t k = 0; k < outs; ++k)
      for (std::int64_t p = k < whole_outs ? whole_depth : 0; p < depth; ++p)
        panel[p * columns + k] = from[k * t.depth + p];
  }
}

// Of a tile's sums, while they are still near.
template <int rows, typename W>
void finish_tile(const Product& t, W width, std::int64_t row, std::int64_t out) {
  constexpr int lanes = W::lanes;
  for (int k = 0; k < W::vectors; ++k) {
    const std::int64_t column = out + k * lanes;
    Vector<lanes> bias{}, sum;
    if (t.finish.bias != nullptr) load<lanes, W::part>(t.finish.bias + column, bias, width.count);
    for (int i = 0; i < rows; ++i) {
      const std::int64_t at = (row + i) * t.outs + column;
      load<lanes, W::part>(t.out + at, sum, width.count);
      finish_sum<lanes, W::part>(t.finish, bias, at, sum, width.count);
      store<lanes, W::part>(sum, t.out + at, width.count);
    }
  }
}

template <int lanes, Filters kLie>
void multiply(const Product& t, Range rows, Range outs) {
  alignas(64) float panel[kDepth * kTileVectors<lanes> * lanes];
  over_channels<lanes>(outs.begin, outs.end, [&](std::int64_t out, auto width) {
    using W = decltype(width);
    for (std::int64_t first = 0; first < t.depth; first += kDepth) {
      const std::int64_t depth = std::min(kDepth, t.depth - first);
      const bool last = first + depth == t.depth;
      pack<kLie>(t, first, depth, out, width, panel);
      in_parts<kTileRows>(rows.count(), [&](std::int64_t i, auto count) {
        const std::int64_t row = rows.begin + i;
        sum_products<count>(width, t.in + row * t.in_row + first * t.in_step, t.in_row, t.in_step,
                            panel, W::vectors * lanes, depth, t.add || first > 0,
                            t.out + row * t.outs + out, t.outs);
        if constexpr (kLie == Filters::outs_by_depth)  // gradients have nothing behind them
          if (last && t.finish.any()) finish_tile<count>(t, width, row, out);
      });
    }
  });
}

// What the thread with the most pieces has of all of them.
double largest_share(std::int64_t pieces, int threads) {
  return static_cast<double>((pieces + threads - 1) / threads) / static_cast<double>(pieces);
}

// Threads share out the results' channels, so that each panel is packed once, or the rows, where
// that leaves less to the one with the most.
template <Filters kLie>
void multiply_all(int threads, const Product& t) {
  constexpr double kPacking = 8;  // rows that a tile computes while a panel is packed
  const std::int64_t owned = (t.outs + kOwnedChannels - 1) / kOwnedChannels;
  const std::int64_t tiles = (t.rows + kTileRows - 1) / kTileRows;
  const auto rows = static_cast<double>(t.rows);
  if ((rows + kPacking) * largest_share(owned, threads) <=
      rows * largest_share(tiles, threads) + kPacking)
    return parallel_for(threads, owned, 1, [&](std::int64_t begin, std::int64_t end, int) {
      const Range outs{begin * kOwnedChannels, std::min(end * kOwnedChannels, t.outs)};
      widest([&](auto lanes) { multiply<lanes, kLie>(t, {0, t.rows}, outs); });
    });
  parallel_for(threads, tiles, 1, [&](std::int64_t begin, std::int64_t end, int) {
    const Range part{begin * kTileRows, std::min(end * kTileRows, t.rows)};
    widest([&](auto lanes) { multiply<lanes, kLie>(t, part, {0, t.outs}); });
  });
}

std::int64_t cells(const Conv2dProblem& p) { return p.n * p.h * p.w; }

}  // namespace

bool pointwise_conv2d_possible(const Conv2dProblem& p) {
  return cells(p) > 0 && p.c > 0 && p.o > 0 && p.dtype == DType::f32 && p.groups == 1 &&
         p.kh == 1 && p.kw == 1 && p.stride == 1 && p.padding == 0;
}

// Measured beside oneDNN and the direct path on the layers of MobileNetV1 at batches 1, 4, 16 and
// 64, two threads, with AVX-512 and with AVX2.
bool pointwise_conv2d_pays(const Conv2dProblem& p, Pass pass) {
  if (!pointwise_conv2d_possible(p)) return false;
  constexpr std::int64_t kVector = 16;  // where channels end within one, its rest is lost
  const std::int64_t outs = pass == Pass::forward ? p.o : p.c;
  if (outs % kVector != 0) return false;
  switch (pass) {
    case Pass::forward:
      return cells(p) >= 64;  // what turning the filters about is worth
    case Pass::backward_input:
      return true;
    default:
      return p.o * p.c >= 1 << 14;  // fewer sums are no match for as many cells
  }
}

void PointwiseConv2d::forward(const float* x, const float* w, const float* bias,
                              const float* residual, float* y) const {
  multiply_all<Filters::outs_by_depth>(threads, {.rows = cells(problem),
                                                 .depth = problem.c,
                                                 .outs = problem.o,
                                                 .in = x,
                                                 .in_row = problem.c,
                                                 .in_step = 1,
                                                 .filters = w,
                                                 .add = false,
                                                 .out = y,
                                                 .finish = {bias, residual, problem.activation}});
}

void PointwiseConv2d::backward_input(const float* dy, const float* w, float* dx,
                                     GradMode mode) const {
  multiply_all<Filters::depth_by_outs>(threads, {.rows = cells(problem),
                                                 .depth = problem.o,
                                                 .outs = problem.c,
                                                 .in = dy,
                                                 .in_row = problem.o,
                                                 .in_step = 1,
                                                 .filters = w,
                                                 .add = mode == GradMode::accumulate,
                                                 .out = dx});
}

void PointwiseConv2d::backward_weight(const float* x, const float* dy, float* dw,
                                      GradMode mode) const {
  multiply_all<Filters::depth_by_outs>(threads, {.rows = problem.o,
                                                 .depth = cells(problem),
                                                 .outs = problem.c,
                                                 .in = dy,
                                                 .in_row = 1,
                                                 .in_step = problem.o,
                                                 .filters = x,
                                                 .add = mode == GradMode::accumulate,
                                                 .out = dw});
}

}  // namespace nf::cpu
