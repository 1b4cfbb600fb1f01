// Convolution without oneDNN: direct loops over weights as they lie, Winograd's products, products
// of cells with 1x1 filters, matrix products over gathered patches, and direct depthwise loops.
#pragma once

#include <cstdint>

#include "engine/backend.h"

namespace nf::cpu {

/// Bytes of the workspace that the functions below want.
std::int64_t gemm_conv2d_workspace(const Conv2dProblem& problem, Pass pass, int threads);
std::int64_t depthwise_conv2d_workspace(const Conv2dProblem& problem, Pass pass, int threads);

/// x (N, H, W, C), w (O, KH, KW, C / groups), y (N, out_h, out_w, O), bias (O) or null.
/// Instantiated for float and double; the depthwise ones hold where problem.depthwise().
template <typename T>
struct GemmConv2d {
  const Conv2dProblem& problem;
  int threads;
  Workspace workspace;

  void forward(const T* x, const T* w, const T* bias, T* y) const;
  void backward_input(const T* dy, const T* w, T* dx, GradMode mode) const;
  void backward_weight(const T* x, const T* dy, T* dw, GradMode mode) const;
};

template <typename T>
struct DepthwiseConv2d {
  const Conv2dProblem& problem;
  int threads;
  Workspace workspace;

  void forward(const T* x, const T* w, const T* bias, T* y) const;
  void backward_input(const T* dy, const T* w, T* dx, GradMode mode) const;
  void backward_weight(const T* x, const T* dy, T* dw, GradMode mode) const;
};

/// Whether the path below is the fastest for this pass; a matter of the problem alone.
bool direct_conv2d_pays(const Conv2dProblem& problem, Pass pass);
/// Whether it is so in the forward pass even where reordering the weights costs nothing.
bool direct_conv2d_beats_layouts(const Conv2dProblem& problem);

/// Whether the path below can do this: f32, ungrouped, 3x3 filters, stride 1, padding up to 2,
/// multiples of 16 channels on both sides, kMostZeros at most.
bool winograd_conv2d_possible(const Conv2dProblem& problem);
/// Whether it is the fastest for this pass too; a matter of the problem alone.
bool winograd_conv2d_pays(const Conv2dProblem& problem, Pass pass);
/// Bytes of its workspace.
std::int64_t winograd_conv2d_workspace(const Conv2dProblem& problem, Pass pass, int threads);

/// Winograd's convolution, whose error is about twice that of a plain sum (winograd.h). What
/// follows a forward pass is done too, a null residual for none. Weights are as
/// above; an infinity becomes NaN, and a NaN spreads over its tile of 4x4 outputs.
struct WinogradConv2d {
  const Conv2dProblem& problem;
  int threads;
  Workspace workspace;

  void forward(const float* x, const float* w, const float* bias, const float* residual,
               float* y) const;
  void backward_input(const float* dy, const float* w, float* dx, GradMode mode) const;
  void backward_weight(const float* x, const float* dy, float* dw, GradMode mode) const;
};

/// Whether the path below can do this: f32, ungrouped, 1x1 filters, stride 1, no padding.
bool pointwise_conv2d_possible(const Conv2dProblem& problem);
/// Whether it is the fastest for this pass too; a matter of the problem alone.
bool pointwise_conv2d_pays(const Conv2dProblem& problem, Pass pass);

/// Without a workspace. What follows a forward pass is done too, a null residual for none.
struct PointwiseConv2d {
  const Conv2dProblem& problem;
  int threads;

  void forward(const float* x, const float* w, const float* bias, const float* residual,
               float* y) const;
  void backward_input(const float* dy, const float* w, float* dx, GradMode mode) const;
  void backward_weight(const float* x, const float* dy, float* dw, GradMode mode) const;
};

/// In f32, ungrouped, without a workspace.
struct DirectConv2d {
  const Conv2dProblem& problem;
  int threads;

  void forward(const float* x, const float* w, const float* bias, float* y) const;
  void backward_input(const float* dy, const float* w, float* dx, GradMode mode) const;
  void backward_weight(const float* x, const float* dy, float* dw, GradMode mode) const;
};

}  // namespace nf::cpu
