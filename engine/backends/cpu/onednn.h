// What the CPU backend asks of oneDNN, without its headers. Everything is f32.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/backend.h"

namespace nf::cpu {

/// Operands of one pass; `out` is what the pass computes.
struct Conv2dOperands {
  const float* x = nullptr;         // (N, H, W, C), not for backward_input
  const float* w = nullptr;         // (O, KH, KW, C / groups), not for backward_weight
  const float* bias = nullptr;      // (O) or null, forward only
  const float* residual = nullptr;  // (N, out_h, out_w, O) where the problem has one
  const float* dy = nullptr;        // (N, out_h, out_w, O), not for forward
  float* out = nullptr;
};

struct LinearOperands {
  const float* x = nullptr;     // (N, I)
  const float* w = nullptr;     // (O, I)
  const float* bias = nullptr;  // (O) or null, forward only
  const float* dy = nullptr;    // (N, O)
  float* out = nullptr;
};

/// Keeps what it made for each problem, so that a steady training step makes nothing. For one
/// calling thread. Failures of the library are Errors naming the operator and the problem.
class OneDnn {
 public:
  virtual ~OneDnn() = default;

  /// Whether the library has more than its reference implementation for this pass and, forward, for
  /// what follows it.
  virtual bool has_conv2d(const Conv2dProblem& problem, Pass pass) = 0;
  /// Bytes for reordered weights, the library's scratchpad and what accumulation needs.
  virtual std::int64_t conv2d_workspace(const Conv2dProblem& problem, Pass pass, GradMode mode) = 0;
  virtual void conv2d(const Conv2dProblem& problem, Pass pass, GradMode mode,
                      const Conv2dOperands& operands, Workspace workspace) = 0;

  // Layouts of weights, as Backend has them.
  virtual std::int64_t conv2d_weight_layout(const Conv2dProblem& problem) = 0;
  virtual std::int64_t conv2d_weight_bytes(const Conv2dProblem& problem, std::int64_t layout) = 0;
  virtual std::int64_t conv2d_reorder_workspace(const Conv2dProblem& problem,
                                                std::int64_t layout) = 0;
  virtual void conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout,
                                      const float* w, float* out, Workspace workspace) = 0;

  virtual bool has_linear(const LinearProblem& problem, Pass pass, GradMode mode) = 0;
  virtual std::int64_t linear_workspace(const LinearProblem& problem, Pass pass, GradMode mode) = 0;
  virtual void linear(const LinearProblem& problem, Pass pass, GradMode mode,
                      const LinearOperands& operands, Workspace workspace) = 0;
};

/// Defined only where the library was built in.
std::unique_ptr<OneDnn> make_onednn(int threads);

}  // namespace nf::cpu
