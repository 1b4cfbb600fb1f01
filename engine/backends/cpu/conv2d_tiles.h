// The inner products of our own convolutions: tiles of results that stay in registers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/backend.h"
#include "engine/backends/cpu/vectors.h"

namespace nf::cpu {

/// Rows, and columns in vectors, of a tile that the registers hold: 32 with AVX-512, 16 elsewhere.
inline constexpr int kTileRows = 6;
template <int lanes>
inline constexpr int kTileVectors = lanes == 16 ? 4 : 2;

struct Range {
  std::int64_t begin, end;
  std::int64_t count() const { return end - begin; }
};

/// Cuts `count` into parts of at most `most`, as alike as can be: fn(begin, Constant<part>{}).
template <int most, typename Fn>
void in_parts(std::int64_t count, const Fn& fn) {
  for (std::int64_t begin = 0; begin < count;) {
    const std::int64_t left = count - begin, parts = (left + most - 1) / most;
    const std::int64_t part = (left + parts - 1) / parts;
    with_count<most>(part, [&](auto size) { fn(begin, size); });
    begin += part;
  }
}

/// sum[i][j] += w[i] x[j] over `length` elements, a multiple of the lanes, for `outs` filters and
/// `ins` images; the elements of a sum are still to be added up.
template <int lanes, int outs, int ins>
void add_whole_dots(const float* w, std::int64_t w_row, const float* x, std::int64_t x_row,
                    std::int64_t length, float* sums) {
  Vector<lanes> sum[outs][ins];
  for (int i = 0; i < outs; ++i)
    for (int j = 0; j < ins; ++j) load<lanes>(sums + (i * ins + j) * lanes, sum[i][j]);
  for (std::int64_t k = 0; k < length; k += lanes) {
    Vector<lanes> from_w[outs];
    for (int i = 0; i < outs; ++i) {
      Vector<lanes> filter;
      load<lanes>(w + i * w_row + k, filter);
      hold(filter);
      from_w[i] = filter;
    }
    for (int j = 0; j < ins; ++j) {
      Vector<lanes> from_x;
      load<lanes>(x + j * x_row + k, from_x);
      hold(from_x);
      for (int i = 0; i < outs; ++i) sum[i][j] += from_w[i] * from_x;
    }
  }
  for (int i = 0; i < outs; ++i)
    for (int j = 0; j < ins; ++j) store<lanes>(sum[i][j], sums + (i * ins + j) * lanes);
}

/// The same for any length.
template <int lanes, int outs, int ins>
void add_dots(const float* w, std::int64_t w_row, const float* x, std::int64_t x_row,
              std::int64_t length, float* sums) {
  const std::int64_t whole = length / lanes * lanes;
  add_whole_dots<lanes, outs, ins>(w, w_row, x, x_row, whole, sums);
  if (whole == length) return;
  float w_rest[outs * lanes] = {}, x_rest[ins * lanes] = {};
  for (std::int64_t k = whole; k < length; ++k) {
    for (int i = 0; i < outs; ++i) w_rest[i * lanes + k - whole] = w[i * w_row + k];
    for (int j = 0; j < ins; ++j) x_rest[j * lanes + k - whole] = x[j * x_row + k];
  }
  add_whole_dots<lanes, outs, ins>(w_rest, lanes, x_rest, lanes, lanes, sums);
}

/// y[j][i] = bias[i] + the elements of sum[i][j], a null bias for none.
template <int lanes, int outs, int ins>
void finish_dots(const float* sums, const float* bias, float* y, std::int64_t y_row) {
  static_assert(outs == 4 || outs == 1);
  for (int j = 0; j < ins; ++j) {
    Vector<4> four[4] = {}, more;
    for (int i = 0; i < outs; ++i)
      for (int k = 0; k < lanes; k += 4) {
        load<4>(sums + (i * ins + j) * lanes + k, more);
        four[i] += more;
      }
    const Vector<4> left = __builtin_shufflevector(four[0], four[1], 0, 4, 1, 5) +
                           __builtin_shufflevector(four[0], four[1], 2, 6, 3, 7);
    const Vector<4> right = __builtin_shufflevector(four[2], four[3], 0, 4, 1, 5) +
                            __builtin_shufflevector(four[2], four[3], 2, 6, 3, 7);
    Vector<4> total = __builtin_shufflevector(left, right, 0, 1, 4, 5) +
                      __builtin_shufflevector(left, right, 2, 3, 6, 7);
    if (bias != nullptr) {
      load<4, outs != 4>(bias, more, outs);
      total += more;
    }
    store<4, outs != 4>(total, y + j * y_row, outs);
  }
}

/// A tile's columns: vectors * lanes channels, or `count` of one vector where it is a `part`.
template <int lanes_, int vectors_, bool part_>
struct Width {
  static constexpr int lanes = lanes_, vectors = vectors_;
  static constexpr bool part = part_;
  std::int64_t count = lanes;
};

/// fn(c, Width) for tiles that cover channels begin to end.
template <int lanes, typename Fn>
void over_channels(std::int64_t begin, std::int64_t end, const Fn& fn) {
  std::int64_t c = begin;
  constexpr int vectors = kTileVectors<lanes>;
  for (; c + vectors * lanes <= end; c += vectors * lanes) fn(c, Width<lanes, vectors, false>{});
  if (const std::int64_t left = (end - c) / lanes; left > 0) {
    with_count<vectors - 1>(left, [&](auto count) { fn(c, Width<lanes, count, false>{}); });
    c += left * lanes;
  }
  if (c < end) fn(c, Width<lanes, 1, true>{end - c});
}

/// to[row][column] = or += sum over depth of v[row][depth] u[depth][column], for `rows` rows and
/// the columns of a width; the rows of u are whole vectors even where the width is a part of one. A
/// sum in parts has the same bits as in one.
template <int rows, typename W>
void sum_products(W width, const float* v, std::int64_t v_row, std::int64_t v_step, const float* u,
                  std::int64_t u_step, std::int64_t depth, bool add, float* to,
                  std::int64_t to_row) {
  constexpr int lanes = W::lanes, vectors = W::vectors;
  Vector<lanes> sum[rows][vectors];
  for (int i = 0; i < rows; ++i)
    for (int k = 0; k < vectors; ++k)
      if (add)
        load<lanes, W::part>(to + i * to_row + k * lanes, sum[i][k], width.count);
      else
        sum[i][k] = Vector<lanes>{};
  for (std::int64_t d = 0; d < depth; ++d, v += v_step, u += u_step) {
    Vector<lanes> from_u[vectors];
    for (int k = 0; k < vectors; ++k) {
      Vector<lanes> row;  // an array's element would be held in memory
      load<lanes>(u + k * lanes, row);
      hold(row);
      from_u[k] = row;
    }
    for (int i = 0; i < rows; ++i) {
      Vector<lanes> from_v = v[i * v_row] - Vector<lanes>{};
      hold(from_v);
      for (int k = 0; k < vectors; ++k) sum[i][k] += from_v * from_u[k];
    }
  }
  for (int i = 0; i < rows; ++i)
    for (int k = 0; k < vectors; ++k)
      store<lanes, W::part>(sum[i][k], to + i * to_row + k * lanes, width.count);
}

/// What becomes of a convolution's sums besides.
struct Finish {
  const float* bias = nullptr;      // (outs) or null
  const float* residual = nullptr;  // as the result, or null
  Activation activation = Activation::none;

  bool any() const {
    return bias != nullptr || residual != nullptr || activation != Activation::none;
  }
};

/// sum = activation(sum + bias + residual[at]), for the `count` channels of a vector or a part.
template <int lanes, bool part = false>
void finish_sum(const Finish& finish, const Vector<lanes>& bias, std::int64_t at,
                Vector<lanes>& sum, std::int64_t count = lanes) {
  sum += bias;
  if (finish.residual != nullptr) {
    Vector<lanes> more;
    load<lanes, part>(finish.residual + at, more, count);
    sum += more;
  }
  if (finish.activation == Activation::none) return;
  // In this order a NaN passes through.
  const auto bound = static_cast<float>(upper_bound(finish.activation));
  sum = sum < 0.0F ? Vector<lanes>{} : sum;
  sum = sum > bound ? bound - Vector<lanes>{} : sum;
}

/// Output cells that see a tap, in rows, columns and images: how many there are, and how far it is
/// from each to the next.
struct Cells {
  std::int64_t count[3], x_step[3], dy_step[3];
};

/// dw[i][c] = or += sum over cells of dy[cell][i] x[cell][c], for `outs` filters.
template <int outs, typename W>
void sum_over_cells(W width, const Cells& cells, const float* x, const float* dy, bool accumulate,
                    float* dw, std::int64_t dw_row) {
  constexpr int lanes = W::lanes, vectors = W::vectors;
  Vector<lanes> sum[outs][vectors];
  for (int i = 0; i < outs; ++i)
    for (int v = 0; v < vectors; ++v) sum[i][v] = Vector<lanes>{};
  for (std::int64_t row = 0; row < cells.count[0]; ++row)
    for (std::int64_t column = 0; column < cells.count[1]; ++column) {
      const float* x_at = x + row * cells.x_step[0] + column * cells.x_step[1];
      const float* dy_at = dy + row * cells.dy_step[0] + column * cells.dy_step[1];
      for (std::int64_t n = 0; n < cells.count[2];
           ++n, x_at += cells.x_step[2], dy_at += cells.dy_step[2]) {
        Vector<lanes> from_x[vectors];
        for (int v = 0; v < vectors; ++v) {
          load<lanes, W::part>(x_at + v * lanes, from_x[v], width.count);
          hold(from_x[v]);
        }
        for (int i = 0; i < outs; ++i) {
          Vector<lanes> upstream = dy_at[i] - Vector<lanes>{};
          hold(upstream);
          for (int v = 0; v < vectors; ++v) sum[i][v] += upstream * from_x[v];
        }
      }
    }
  for (int i = 0; i < outs; ++i)
    for (int v = 0; v < vectors; ++v) {
      float* to = dw + i * dw_row + v * lanes;
      if (accumulate) {
        Vector<lanes> held;
        load<lanes, W::part>(to, held, width.count);
        sum[i][v] += held;
      }
      store<lanes, W::part>(sum[i][v], to, width.count);
    }
}

}  // namespace nf::cpu
