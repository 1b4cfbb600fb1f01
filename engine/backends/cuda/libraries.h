// CUDA's large libraries, loaded when a device is first asked for: a program that trains on the CPU
// pays nothing for them.
#pragma once

#include <cublasLt.h>
#include <cudnn.h>

#include <string>

namespace nf::cuda {

/// A library loaded by its soname, for as long as the process lives: at its end the driver may be
/// gone first.
class SharedLibrary {
 public:
  /// Looks where the loader looks: the program's run path, LD_LIBRARY_PATH, the system's folders.
  /// Throws Error on one line, naming the library and the loader's words.
  explicit SharedLibrary(const std::string& soname);

  /// The function `name`. Throws Error naming the library where it has none.
  template <typename Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;

  std::string soname_;
  void* handle_;
};

// What is called of each library: its own names, and the types that its header declares.
#define NF_CUBLAS_LT_FUNCTIONS(of)                                                          \
  of(cublasLtCreate) of(cublasLtDestroy) of(cublasLtGetStatusString) of(cublasLtGetVersion) \
      of(cublasLtMatmul) of(cublasLtMatmulAlgoGetHeuristic) of(cublasLtMatmulDescCreate)    \
          of(cublasLtMatmulDescDestroy) of(cublasLtMatmulDescSetAttribute)                  \
              of(cublasLtMatmulPreferenceCreate) of(cublasLtMatmulPreferenceDestroy)        \
                  of(cublasLtMatmulPreferenceSetAttribute) of(cublasLtMatrixLayoutCreate)   \
                      of(cublasLtMatrixLayoutDestroy)

#define NF_CUDNN_FUNCTIONS(of)                                                                    \
  of(cudnnConvolutionBackwardData) of(cudnnConvolutionBackwardFilter) of(cudnnConvolutionForward) \
      of(cudnnCreate) of(cudnnCreateConvolutionDescriptor) of(cudnnCreateFilterDescriptor)        \
          of(cudnnCreateTensorDescriptor) of(cudnnDestroy) of(cudnnDestroyConvolutionDescriptor)  \
              of(cudnnDestroyFilterDescriptor) of(cudnnDestroyTensorDescriptor)                   \
                  of(cudnnGetConvolutionBackwardDataAlgorithm_v7)                                 \
                      of(cudnnGetConvolutionBackwardFilterAlgorithm_v7)                           \
                          of(cudnnGetConvolutionForwardAlgorithm_v7)                              \
                              of(cudnnGetConvolutionForwardWorkspaceSize)                         \
                                  of(cudnnGetConvolutionBackwardDataWorkspaceSize)                \
                                      of(cudnnGetConvolutionBackwardFilterWorkspaceSize)          \
                                          of(cudnnGetErrorString) of(cudnnGetVersion)             \
                                              of(cudnnSetConvolution2dDescriptor)                 \
                                                  of(cudnnSetConvolutionGroupCount)               \
                                                      of(cudnnSetConvolutionMathType)             \
                                                          of(cudnnSetFilter4dDescriptor)          \
                                                              of(cudnnSetStream)                  \
                                                                  of(cudnnSetTensor4dDescriptor)

#define NF_LIBRARY_FUNCTION(name) decltype(&::name) name;

struct CublasLt {
  NF_CUBLAS_LT_FUNCTIONS(NF_LIBRARY_FUNCTION)
};
struct Cudnn {
  NF_CUDNN_FUNCTIONS(NF_LIBRARY_FUNCTION)
};

#undef NF_LIBRARY_FUNCTION

/// The functions of the versions that this was compiled for, loaded by the first call, for any
/// thread. Throws Error as SharedLibrary does; the next call then tries again.
const CublasLt& cublas();
const Cudnn& cudnn();

}  // namespace nf::cuda
