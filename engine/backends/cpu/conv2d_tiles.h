// The inner products of a direct convolution: tiles of results that stay in registers.
#pragma once

#include <cstdint>

#include "engine/backends/cpu/vectors.h"

namespace nf::cpu {

/// A tile of sums over runs of elements: of w[i] x[j], for `outs` filters and `ins` images.
template <int lanes, int outs, int ins>
struct DotTile {
  using V = Vector<lanes>;
  V sum[outs][ins];

  void clear() {
    for (int i = 0; i < outs; ++i)
      for (int j = 0; j < ins; ++j) sum[i][j] = V{};
  }

  void multiply(const float* w, std::int64_t w_row, const float* x, std::int64_t x_row,
                std::int64_t length) {
    const std::int64_t whole = length / lanes * lanes;
    for (std::int64_t k = 0; k < whole; k += lanes) step<false>(w + k, w_row, x + k, x_row, lanes);
    if (whole < length) step<true>(w + whole, w_row, x + whole, x_row, length - whole);
  }

  /// y[j * y_row + i] = bias[i] + the sum of sum[i][j], a null bias for none.
  void store(const float* bias, float* y, std::int64_t y_row) const {
    for (int j = 0; j < ins; ++j)
      for (int i = 0; i < outs; ++i)
        y[j * y_row + i] = (bias == nullptr ? 0.0F : bias[i]) + total(sum[i][j]);
  }

 private:
  template <bool part>
  void step(const float* w, std::int64_t w_row, const float* x, std::int64_t x_row,
            std::int64_t count) {
    V from_w[outs];
    for (int i = 0; i < outs; ++i) load<lanes, part>(w + i * w_row, from_w[i], count);
    for (int j = 0; j < ins; ++j) {
      V from_x;
      load<lanes, part>(x + j * x_row, from_x, count);
      for (int i = 0; i < outs; ++i) sum[i][j] += from_w[i] * from_x;
    }
  }

  static float total(const V& v) {
    float all[lanes];
    cpu::store<lanes>(v, all);
    Vector<4> four, more;
    load<4>(all, four);
    for (int k = 4; k < lanes; k += 4) {
      load<4>(all + k, more);
      four += more;
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
  }
};

/// A tile's columns: vectors * lanes channels, or `count` of one vector where it is a `part`.
template <int lanes_, int vectors_, bool part_>
struct Width {
  static constexpr int lanes = lanes_, vectors = vectors_;
  static constexpr bool part = part_;
  std::int64_t count = lanes;
};

/// dx[j][c] += sum over o of dy[j][o] w[o][c], for `ins` images.
template <int ins, typename W>
void add_products(W width, const float* dy, std::int64_t dy_row, const float* w, std::int64_t w_row,
                  std::int64_t outs, float* dx, std::int64_t dx_row) {
  constexpr int lanes = W::lanes, vectors = W::vectors;
  Vector<lanes> sum[ins][vectors];
  for (int j = 0; j < ins; ++j)
    for (int v = 0; v < vectors; ++v)
      load<lanes, W::part>(dx + j * dx_row + v * lanes, sum[j][v], width.count);
  for (std::int64_t o = 0; o < outs; ++o, w += w_row) {
    Vector<lanes> from_w[vectors];
    for (int v = 0; v < vectors; ++v) load<lanes, W::part>(w + v * lanes, from_w[v], width.count);
    for (int j = 0; j < ins; ++j) {
      const Vector<lanes> upstream = dy[j * dy_row + o] - Vector<lanes>{};
      for (int v = 0; v < vectors; ++v) sum[j][v] += upstream * from_w[v];
    }
  }
  for (int j = 0; j < ins; ++j)
    for (int v = 0; v < vectors; ++v)
      store<lanes, W::part>(sum[j][v], dx + j * dx_row + v * lanes, width.count);
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
        for (int v = 0; v < vectors; ++v)
          load<lanes, W::part>(x_at + v * lanes, from_x[v], width.count);
        for (int i = 0; i < outs; ++i) {
          const Vector<lanes> upstream = dy_at[i] - Vector<lanes>{};
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
