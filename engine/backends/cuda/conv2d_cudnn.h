// Convolutions by cuDNN on NHWC, dense and grouped.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "engine/backend.h"

namespace nf::cuda {

struct ConvolutionOptions {
  /// Tensor cores round f32 operands to TF32 (10 bits of mantissa); else strict f32.
  bool tf32 = false;
  /// No algorithm with a larger workspace, in bytes, is chosen.
  std::int64_t workspace_cap = 0;
};

/// Algorithms are chosen once for each problem and pass, by cuDNN's own estimate of their speed,
/// among the deterministic ones whose workspace fits the cap, and kept.
/// Throws Error, quoting cuDNN, where it has none.
class Convolutions {
 public:
  Convolutions(cudaStream_t stream, const ConvolutionOptions& options);
  ~Convolutions();
  Convolutions(const Convolutions&) = delete;
  Convolutions& operator=(const Convolutions&) = delete;

  std::int64_t workspace(const Conv2dProblem& problem, Pass pass) const;
  void forward(const Conv2dProblem& problem, const void* x, const void* w, void* y,
               Workspace workspace) const;
  void backward_input(const Conv2dProblem& problem, const void* dy, const void* w, void* dx,
                      GradMode mode, Workspace workspace) const;
  void backward_weight(const Conv2dProblem& problem, const void* x, const void* dy, void* dw,
                       GradMode mode, Workspace workspace) const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace nf::cuda
