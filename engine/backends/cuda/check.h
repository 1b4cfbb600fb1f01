// Every call of a CUDA library is checked; what is thrown quotes the call and the library's words.
#pragma once

#include <cuda_runtime.h>

#include "engine/backends/cuda/libraries.h"
#include "engine/error.h"

namespace nf::cuda {

inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next launch would be blamed for it
  fail("cuda: {} failed: {}", call, cudaGetErrorString(status));
}
inline void check(cudnnStatus_t status, const char* call) {
  NF_CHECK(status == CUDNN_STATUS_SUCCESS, "cudnn: {} failed: {}", call,
           cudnn().cudnnGetErrorString(status));
}
inline void check(cublasStatus_t status, const char* call) {
  NF_CHECK(status == CUBLAS_STATUS_SUCCESS, "cublas: {} failed: {}", call,
           cublas().cublasLtGetStatusString(status));
}

}  // namespace nf::cuda

#define NF_CUDA_CHECK(call) ::nf::cuda::check((call), #call)
