// The transforms of Winograd's convolution F(4x4, 3x3): a patch of 6x6 inputs and a filter of 3x3
// taps become 36 points each; where these are multiplied one by one, 4x4 outputs come back. 36
// products take the place of 144. (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2016.)
//
// The polynomials meet at 0, ±a, ±b and infinity. With a = 5/8 and b = 3/2, which floats hold
// exactly with their squares, the root mean square error in f32 over 64 channels is 1.7 to 1.9
// times that of plain sums; with the usual a = 1 and b = 2 it was measured to be 2.3 times as much
// again.
#pragma once

#include "engine/backends/cpu/vectors.h"

namespace nf::cpu::winograd {

inline constexpr int kTaps = 3, kOutputs = 4, kPatch = kOutputs + kTaps - 1;
inline constexpr int kPoints = kPatch * kPatch;

inline constexpr float kA = 0.625F, kB = 1.5F;
inline constexpr float kA2 = kA * kA, kB2 = kB * kB;

/// Six inputs to six points.
struct InputsToPoints {
  static constexpr int from = kPatch, to = kPatch;
  template <typename V>
  static void run(const V (&x)[kPatch], V (&point)[kPatch]) {
    const V even_a = x[4] - kB2 * x[2], odd_a = kA * (x[3] - kB2 * x[1]);
    const V even_b = x[4] - kA2 * x[2], odd_b = kB * (x[3] - kA2 * x[1]);
    point[0] = x[4] - (kA2 + kB2) * x[2] + kA2 * kB2 * x[0];
    point[1] = even_a + odd_a;
    point[2] = even_a - odd_a;
    point[3] = even_b + odd_b;
    point[4] = even_b - odd_b;
    point[5] = x[5] - (kA2 + kB2) * x[3] + kA2 * kB2 * x[1];
  }
};

/// Six points to four outputs.
struct PointsToOutputs {
  static constexpr int from = kPatch, to = kOutputs;
  template <typename V>
  static void run(const V (&point)[kPatch], V (&y)[kOutputs]) {
    const V sum_a = point[1] + point[2], difference_a = point[1] - point[2];
    const V sum_b = point[3] + point[4], difference_b = point[3] - point[4];
    y[0] = point[0] + sum_a + sum_b;
    y[1] = kA * difference_a + kB * difference_b;
    y[2] = kA2 * sum_a + kB2 * sum_b;
    y[3] = kA2 * kA * difference_a + kB2 * kB * difference_b + point[5];
  }
};

/// What PointsToOutputs is transposed: four outputs' gradients to six points'.
struct OutputsToPoints {
  static constexpr int from = kOutputs, to = kPatch;
  template <typename V>
  static void run(const V (&y)[kOutputs], V (&point)[kPatch]) {
    const V even_a = y[0] + kA2 * y[2], odd_a = kA * y[1] + kA2 * kA * y[3];
    const V even_b = y[0] + kB2 * y[2], odd_b = kB * y[1] + kB2 * kB * y[3];
    point[0] = y[0];
    point[1] = even_a + odd_a;
    point[2] = even_a - odd_a;
    point[3] = even_b + odd_b;
    point[4] = even_b - odd_b;
    point[5] = y[3];
  }
};

inline constexpr float kScale0 = 1.0F / (kA2 * kB2);
inline constexpr float kScaleA = 1.0F / (2.0F * kA2 * (kA2 - kB2));
inline constexpr float kScaleB = 1.0F / (2.0F * kB2 * (kB2 - kA2));

/// Three taps to six points.
struct TapsToPoints {
  static constexpr int from = kTaps, to = kPatch;
  template <typename V>
  static void run(const V (&tap)[kTaps], V (&point)[kPatch]) {
    const V even_a = kScaleA * tap[0] + kScaleA * kA2 * tap[2], odd_a = kScaleA * kA * tap[1];
    const V even_b = kScaleB * tap[0] + kScaleB * kB2 * tap[2], odd_b = kScaleB * kB * tap[1];
    point[0] = kScale0 * tap[0];
    point[1] = even_a + odd_a;
    point[2] = even_a - odd_a;
    point[3] = even_b + odd_b;
    point[4] = even_b - odd_b;
    point[5] = tap[2];
  }
};

/// What TapsToPoints is transposed: six points' gradients to three taps'.
struct PointsToTaps {
  static constexpr int from = kPatch, to = kTaps;
  template <typename V>
  static void run(const V (&point)[kPatch], V (&tap)[kTaps]) {
    const V sum_a = kScaleA * (point[1] + point[2]), sum_b = kScaleB * (point[3] + point[4]);
    tap[0] = kScale0 * point[0] + sum_a + sum_b;
    tap[1] = kScaleA * kA * (point[1] - point[2]) + kScaleB * kB * (point[3] - point[4]);
    tap[2] = kA2 * sum_a + kB2 * sum_b + point[5];
  }
};

/// A transform of squares in both directions: `load(i, j, value)` gives what goes in, for `lanes`
/// squares, `store(i, j, value)` takes what comes out.
template <typename Transform, int lanes, typename Load, typename Store>
void in_both_directions(const Load& load, const Store& store) {
  constexpr int from = Transform::from, to = Transform::to;
  Vector<lanes> half[to][from];
#pragma GCC unroll 6
  for (int j = 0; j < from; ++j) {
    Vector<lanes> in[from], out[to];
#pragma GCC unroll 6
    for (int i = 0; i < from; ++i) load(i, j, in[i]);
    Transform::run(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < to; ++i) half[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < to; ++i) {
    Vector<lanes> out[to];
    Transform::run(half[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < to; ++j) store(i, j, out[j]);
  }
}

}  // namespace nf::cpu::winograd
