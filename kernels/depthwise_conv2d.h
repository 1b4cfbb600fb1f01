// Depthwise convolution: each channel with its own filter. Tensors are NHWC.
//
// Sums are taken in f32 and rounded to T once. Templates exist for float, bf16, f16.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

/// x (n, h, w, c), filters (c, kh, kw), y (n, out_h, out_w, c).
struct DepthwiseProblem {
  std::int64_t n = 0, h = 0, w = 0, c = 0;
  std::int64_t kh = 1, kw = 1, stride = 1, padding = 0;
  std::int64_t out_h = 0, out_w = 0;
};

/// y = x convolved with w, + bias (c) unless null.
/// Must move x and y once, w and bias being small. Moves that where the rows and columns that tiles
/// share stay in the cache; a 3x3 filter loads x 4.5 times, a 5x5 one 10 times (at stride 1).
template <typename T>
void depthwise_forward(Stream stream, const DepthwiseProblem& problem, const T* x, const T* w,
                       const T* bias, T* y);

/// dx, or what is added to it where `accumulate`.
/// Must move dy and dx once, and old dx where it accumulates. Moves that where the rows and columns
/// of dy that tiles share stay in the cache; at stride 1 it loads dy as the forward loads x.
template <typename T>
void depthwise_backward_input(Stream stream, const DepthwiseProblem& problem, const T* dy,
                              const T* w, T* dx, bool accumulate);

/// Bytes of depthwise_backward_weight's workspace: at most a quarter of dy's as f32, or one set of
/// filters.
std::int64_t depthwise_backward_weight_workspace(const DepthwiseProblem& problem);

/// dw (c, kh, kw), or what is added to it where `accumulate`. `workspace` is aligned to 16 bytes.
/// Must move x and dy once, dw being small. Moves also the workspace, out and in, and x and dy once
/// where the threads of a block, one for each row of a filter, find them in the cache.
template <typename T>
void depthwise_backward_weight(Stream stream, const DepthwiseProblem& problem, const T* x,
                               const T* dy, T* dw, bool accumulate, void* workspace);

}  // namespace nf::NF_TARGET
