// Matrix products of linear layers by cuBLASLt, whose workspace is the caller's.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "engine/backend.h"

namespace nf::cuda {

/// cuBLASLt, for any thread and stream. It holds device memory: one for a device.
class CublasHandle {
 public:
  CublasHandle();
  ~CublasHandle();
  CublasHandle(const CublasHandle&) = delete;
  CublasHandle& operator=(const CublasHandle&) = delete;

  cublasLtHandle_t get() const { return handle_; }

 private:
  cublasLtHandle_t handle_ = nullptr;
};

struct ProductOptions {
  /// Tensor cores round f32 operands to TF32 (10 bits of mantissa); else strict f32.
  bool tf32 = false;
  /// No algorithm with a larger workspace, in bytes, is chosen.
  std::int64_t workspace_cap = 0;
};

/// Algorithms are chosen once for each problem and pass, by cuBLAS's own estimate, and kept.
/// Operands need no alignment beyond their type's. Throws Error, quoting cuBLAS, where it has none.
class Products {
 public:
  /// `handle` must outlive this.
  Products(const CublasHandle& handle, cudaStream_t stream, const ProductOptions& options);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  std::int64_t workspace(const LinearProblem& problem, Pass pass, GradMode mode) const;
  /// y (N, O) = x (N, I) w (O, I)^T
  void forward(const LinearProblem& problem, const void* x, const void* w, void* y,
               Workspace workspace) const;
  /// dx (N, I) = dy (N, O) w (O, I)
  void backward_input(const LinearProblem& problem, const void* dy, const void* w, void* dx,
                      GradMode mode, Workspace workspace) const;
  /// dw (O, I) = dy (N, O)^T x (N, I)
  void backward_weight(const LinearProblem& problem, const void* x, const void* dy, void* dw,
                       GradMode mode, Workspace workspace) const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace nf::cuda
