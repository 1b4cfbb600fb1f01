// Convolutions by cuDNN on NHWC, dense and grouped.
#pragma once

#include <cuda_runtime.h>
#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <mutex>

#include "engine/backend.h"

namespace nf::cuda {

/// cuDNN on one stream. Slow to make, and it holds device memory: one for a device.
class CudnnHandle {
 public:
  explicit CudnnHandle(cudaStream_t stream);
  ~CudnnHandle();
  CudnnHandle(const CudnnHandle&) = delete;
  CudnnHandle& operator=(const CudnnHandle&) = delete;

  cudnnHandle_t get() const { return handle_; }
  /// To be held while the handle is used.
  std::mutex& mutex() { return mutex_; }

 private:
  std::mutex mutex_;
  cudnnHandle_t handle_ = nullptr;
};

struct ConvolutionOptions {
  /// Tensor cores round f32 operands to TF32 (10 bits of mantissa); else strict f32.
  bool tf32 = false;
  /// Bytes. Faster algorithms with a larger workspace are passed by.
  std::int64_t workspace_cap = 0;
};

/// Algorithms are chosen once for each problem and pass, by cuDNN's own estimate of their speed and
/// choose_algorithm's rule, and kept. Deterministic ones go first; where cuDNN has none that fits
/// (strict f32 gradients of some problems), repeated runs differ in the last bits.
/// Throws Error, quoting cuDNN, where it has none.
class Convolutions {
 public:
  /// `handle` must outlive this.
  Convolutions(CudnnHandle& handle, const ConvolutionOptions& options);
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
