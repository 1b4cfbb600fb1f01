#include "engine/backends/cuda/conv2d_cudnn.h"

#include <array>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "engine/backends/cuda/check.h"
#include "engine/backends/cuda/libraries.h"
#include "engine/backends/gpu/library_algorithm.h"

namespace nf::cuda {
namespace {

constexpr float kOne = 1, kZero = 0;

int to_int(std::int64_t value) {
  NF_CHECK(value <= std::numeric_limits<int>::max(), "conv2d: cuDNN counts to 2^31 - 1, not {}",
           value);
  return static_cast<int>(value);
}

cudnnDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDNN_DATA_FLOAT;
    case DType::f16:
      return CUDNN_DATA_HALF;
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    default:
      fail("conv2d: cuda computes in f32, f16 and bf16, not in {}", to_string(dtype));
  }
}

std::string describe(const Conv2dProblem& p) {
  return fmt::format(
      "{} input [{},{},{},{}], filters [{},{},{},{}], stride {}, padding {}, groups {}",
      to_string(p.dtype), p.n, p.h, p.w, p.c, p.o, p.kh, p.kw, p.c / p.groups, p.stride, p.padding,
      p.groups);
}

// Its older interface counts elements of a tensor in 32 bits.
void check_size(const char* what, std::int64_t elements, const Conv2dProblem& p) {
  NF_CHECK(elements <= std::numeric_limits<int>::max(),
           "conv2d: cuDNN counts to 2^31 - 1 elements, the {} has {}: take a smaller batch ({})",
           what, elements, describe(p));
}

const char* name(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return "forward";
    case Pass::backward_input:
      return "backward_input";
    case Pass::backward_weight:
      return "backward_weight";
  }
  return "?";
}

// cuDNN's handles, destroyed with their owner.
struct Descriptors {
  cudnnTensorDescriptor_t x = nullptr, y = nullptr;
  cudnnFilterDescriptor_t w = nullptr;
  cudnnConvolutionDescriptor_t convolution = nullptr;

  Descriptors(const Conv2dProblem& p, bool tf32) {
    try {
      const cudnnDataType_t type = data_type(p.dtype);
      check_size("input", p.n * p.h * p.w * p.c, p);
      check_size("output", p.n * p.out_h() * p.out_w() * p.o, p);
      NF_CUDA_CHECK(cudnn().cudnnCreateTensorDescriptor(&x));
      NF_CUDA_CHECK(cudnn().cudnnCreateTensorDescriptor(&y));
      NF_CUDA_CHECK(cudnn().cudnnCreateFilterDescriptor(&w));
      NF_CUDA_CHECK(cudnn().cudnnCreateConvolutionDescriptor(&convolution));
      NF_CUDA_CHECK(cudnn().cudnnSetTensor4dDescriptor(x, CUDNN_TENSOR_NHWC, type, to_int(p.n),
                                                       to_int(p.c), to_int(p.h), to_int(p.w)));
      NF_CUDA_CHECK(cudnn().cudnnSetTensor4dDescriptor(y, CUDNN_TENSOR_NHWC, type, to_int(p.n),
                                                       to_int(p.o), to_int(p.out_h()),
                                                       to_int(p.out_w())));
      NF_CUDA_CHECK(cudnn().cudnnSetFilter4dDescriptor(w, type, CUDNN_TENSOR_NHWC, to_int(p.o),
                                                       to_int(p.c / p.groups), to_int(p.kh),
                                                       to_int(p.kw)));
      const int padding = to_int(p.padding), stride = to_int(p.stride);
      NF_CUDA_CHECK(cudnn().cudnnSetConvolution2dDescriptor(convolution, padding, padding, stride,
                                                            stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                                            CUDNN_DATA_FLOAT));
      NF_CUDA_CHECK(cudnn().cudnnSetConvolutionGroupCount(convolution, to_int(p.groups)));
      const bool strict = p.dtype == DType::f32 && !tf32;
      // TF32 is what f32 defaults to where the device has it.
      const cudnnMathType_t fast =
          p.dtype == DType::f32 ? CUDNN_DEFAULT_MATH : CUDNN_TENSOR_OP_MATH;
      NF_CUDA_CHECK(
          cudnn().cudnnSetConvolutionMathType(convolution, strict ? CUDNN_FMA_MATH : fast));
    } catch (...) {
      destroy();
      throw;
    }
  }
  ~Descriptors() { destroy(); }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

 private:
  void destroy() {
    if (x != nullptr) cudnn().cudnnDestroyTensorDescriptor(x);
    if (y != nullptr) cudnn().cudnnDestroyTensorDescriptor(y);
    if (w != nullptr) cudnn().cudnnDestroyFilterDescriptor(w);
    if (convolution != nullptr) cudnn().cudnnDestroyConvolutionDescriptor(convolution);
  }
};

// How one pass of one problem is computed.
struct Choice {
  Descriptors descriptors;
  int algorithm = 0;
  std::int64_t workspace = 0;

  Choice(const Conv2dProblem& problem, bool tf32) : descriptors(problem, tf32) {}
};

}  // namespace

CudnnHandle::CudnnHandle(cudaStream_t stream) {
  NF_CUDA_CHECK(cudnn().cudnnCreate(&handle_));
  const cudnnStatus_t status = cudnn().cudnnSetStream(handle_, stream);
  if (status != CUDNN_STATUS_SUCCESS) {
    cudnn().cudnnDestroy(handle_);
    check(status, "cudnnSetStream(handle_, stream)");
  }
}

CudnnHandle::~CudnnHandle() { cudnn().cudnnDestroy(handle_); }

class Convolutions::Implementation {
 public:
  Implementation(CudnnHandle& handle, const ConvolutionOptions& options)
      : shared_(handle), handle_(handle.get()), options_(options) {}

  cudnnHandle_t handle() const { return handle_; }
  /// To be held while the handle or a choice is used.
  std::mutex& mutex() { return shared_.mutex(); }

  const Choice& choice(const Conv2dProblem& p, Pass pass) {
    const Key key{p.dtype, p.n,  p.h,      p.w,       p.c,      p.o,
                  p.kh,    p.kw, p.stride, p.padding, p.groups, pass};
    std::unique_ptr<Choice>& known = choices_[key];
    if (known == nullptr) {
      try {
        known = choose(p, pass);
      } catch (...) {
        choices_.erase(key);
        throw;
      }
    }
    return *known;
  }

 private:
  using Key =
      std::tuple<DType, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                 std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Pass>;

  std::unique_ptr<Choice> choose(const Conv2dProblem& p, Pass pass) const {
    auto choice = std::make_unique<Choice>(p, options_.tf32);
    const Descriptors& d = choice->descriptors;
    switch (pass) {
      case Pass::forward: {
        std::array<cudnnConvolutionFwdAlgoPerf_t, CUDNN_CONVOLUTION_FWD_ALGO_COUNT> found{};
        int count = 0;
        const cudnnStatus_t status = cudnn().cudnnGetConvolutionForwardAlgorithm_v7(
            handle_, d.x, d.w, d.convolution, d.y, static_cast<int>(found.size()), &count,
            found.data());
        if (status != CUDNN_STATUS_SUCCESS) count = offer_all(found);
        take(found.data(), count, p, pass, status, *choice);
        break;
      }
      case Pass::backward_input: {
        std::array<cudnnConvolutionBwdDataAlgoPerf_t, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT>
            found{};
        int count = 0;
        const cudnnStatus_t status = cudnn().cudnnGetConvolutionBackwardDataAlgorithm_v7(
            handle_, d.w, d.y, d.convolution, d.x, static_cast<int>(found.size()), &count,
            found.data());
        if (status != CUDNN_STATUS_SUCCESS) count = offer_all(found);
        take(found.data(), count, p, pass, status, *choice);
        break;
      }
      case Pass::backward_weight: {
        std::array<cudnnConvolutionBwdFilterAlgoPerf_t, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT>
            found{};
        int count = 0;
        const cudnnStatus_t status = cudnn().cudnnGetConvolutionBackwardFilterAlgorithm_v7(
            handle_, d.x, d.y, d.convolution, d.w, static_cast<int>(found.size()), &count,
            found.data());
        if (status != CUDNN_STATUS_SUCCESS) count = offer_all(found);
        take(found.data(), count, p, pass, status, *choice);
        break;
      }
    }
    return choice;
  }

  // Heuristics don't know every problem that an algorithm can do: each is then asked itself. Number
  // 1 is the common one of every pass; number 0 of the gradients adds up in any order, and so does
  // number 3 of the filters'.
  template <typename Found, std::size_t N>
  int offer_all(std::array<Found, N>& found) const {
    using Algorithm = decltype(Found::algo);
    constexpr bool forward = std::is_same_v<Algorithm, cudnnConvolutionFwdAlgo_t>;
    constexpr bool filter = std::is_same_v<Algorithm, cudnnConvolutionBwdFilterAlgo_t>;
    for (std::size_t i = 0; i < N; ++i) {
      const std::size_t number = i < 2 ? 1 - i : i;
      const bool any_order = !forward && (number == 0 || (filter && number == 3));
      found[i] = {};
      found[i].algo = static_cast<Algorithm>(number);
      found[i].status = CUDNN_STATUS_SUCCESS;
      found[i].determinism = any_order ? CUDNN_NON_DETERMINISTIC : CUDNN_DETERMINISTIC;
      found[i].mathType = CUDNN_DEFAULT_MATH;
    }
    return static_cast<int>(N);
  }

  template <typename Found>
  void take(const Found* found, int count, const Conv2dProblem& p, Pass pass,
            cudnnStatus_t heuristics, Choice& choice) const {
    const bool strict = p.dtype == DType::f32 && !options_.tf32;
    std::vector<LibraryAlgorithm> offered;
    std::vector<const Found*> origins;
    for (int i = 0; i < count; ++i) {
      if (found[i].status != CUDNN_STATUS_SUCCESS ||
          (strict && found[i].mathType != CUDNN_FMA_MATH &&
           found[i].mathType != CUDNN_DEFAULT_MATH))
        continue;
      // What the heuristics offer is an estimate: an algorithm counts once cuDNN has told its
      // workspace for these very descriptors, and with as much as it told.
      const std::int64_t workspace = told_workspace(choice.descriptors, found[i], strict);
      if (workspace < 0) continue;
      offered.push_back({workspace, found[i].determinism == CUDNN_DETERMINISTIC});
      origins.push_back(&found[i]);
    }
    const auto chosen = choose_algorithm(offered, options_.workspace_cap);
    NF_CHECK(chosen.has_value(), "conv2d: cuDNN has no {} algorithm for {}; its heuristics say {}",
             name(pass), describe(p), cudnn().cudnnGetErrorString(heuristics));
    choice.algorithm = static_cast<int>(origins[*chosen]->algo);
    choice.workspace = offered[*chosen].workspace;
    if (!strict)
      NF_CUDA_CHECK(cudnn().cudnnSetConvolutionMathType(choice.descriptors.convolution,
                                                        origins[*chosen]->mathType));
  }

  // -1 where cuDNN can't run it after all.
  template <typename Found>
  std::int64_t told_workspace(const Descriptors& d, const Found& found, bool strict) const {
    if (!strict &&
        cudnn().cudnnSetConvolutionMathType(d.convolution, found.mathType) != CUDNN_STATUS_SUCCESS)
      return -1;
    std::size_t bytes = 0;
    const cudnnStatus_t status = ask_workspace(d, found.algo, &bytes);
    return status == CUDNN_STATUS_SUCCESS ? static_cast<std::int64_t>(bytes) : -1;
  }
  cudnnStatus_t ask_workspace(const Descriptors& d, cudnnConvolutionFwdAlgo_t algorithm,
                              std::size_t* bytes) const {
    return cudnn().cudnnGetConvolutionForwardWorkspaceSize(handle_, d.x, d.w, d.convolution, d.y,
                                                           algorithm, bytes);
  }
  cudnnStatus_t ask_workspace(const Descriptors& d, cudnnConvolutionBwdDataAlgo_t algorithm,
                              std::size_t* bytes) const {
    return cudnn().cudnnGetConvolutionBackwardDataWorkspaceSize(handle_, d.w, d.y, d.convolution,
                                                                d.x, algorithm, bytes);
  }
  cudnnStatus_t ask_workspace(const Descriptors& d, cudnnConvolutionBwdFilterAlgo_t algorithm,
                              std::size_t* bytes) const {
    return cudnn().cudnnGetConvolutionBackwardFilterWorkspaceSize(handle_, d.x, d.y, d.convolution,
                                                                  d.w, algorithm, bytes);
  }

  CudnnHandle& shared_;
  cudnnHandle_t handle_;
  ConvolutionOptions options_;
  std::map<Key, std::unique_ptr<Choice>> choices_;
};

Convolutions::Convolutions(CudnnHandle& handle, const ConvolutionOptions& options)
    : implementation_(std::make_unique<Implementation>(handle, options)) {}

Convolutions::~Convolutions() = default;

std::int64_t Convolutions::workspace(const Conv2dProblem& problem, Pass pass) const {
  const std::lock_guard lock(implementation_->mutex());
  return implementation_->choice(problem, pass).workspace;
}

void Convolutions::forward(const Conv2dProblem& problem, const void* x, const void* w, void* y,
                           Workspace workspace) const {
  const std::lock_guard lock(implementation_->mutex());
  const Choice& c = implementation_->choice(problem, Pass::forward);
  NF_CUDA_CHECK(cudnn().cudnnConvolutionForward(
      implementation_->handle(), &kOne, c.descriptors.x, x, c.descriptors.w, w,
      c.descriptors.convolution, static_cast<cudnnConvolutionFwdAlgo_t>(c.algorithm),
      workspace.data, static_cast<std::size_t>(workspace.bytes), &kZero, c.descriptors.y, y));
}

void Convolutions::backward_input(const Conv2dProblem& problem, const void* dy, const void* w,
                                  void* dx, GradMode mode, Workspace workspace) const {
  const std::lock_guard lock(implementation_->mutex());
  const Choice& c = implementation_->choice(problem, Pass::backward_input);
  const float* kept = mode == GradMode::accumulate ? &kOne : &kZero;
  NF_CUDA_CHECK(cudnn().cudnnConvolutionBackwardData(
      implementation_->handle(), &kOne, c.descriptors.w, w, c.descriptors.y, dy,
      c.descriptors.convolution, static_cast<cudnnConvolutionBwdDataAlgo_t>(c.algorithm),
      workspace.data, static_cast<std::size_t>(workspace.bytes), kept, c.descriptors.x, dx));
}

void Convolutions::backward_weight(const Conv2dProblem& problem, const void* x, const void* dy,
                                   void* dw, GradMode mode, Workspace workspace) const {
  const std::lock_guard lock(implementation_->mutex());
  const Choice& c = implementation_->choice(problem, Pass::backward_weight);
  const float* kept = mode == GradMode::accumulate ? &kOne : &kZero;
  NF_CUDA_CHECK(cudnn().cudnnConvolutionBackwardFilter(
      implementation_->handle(), &kOne, c.descriptors.x, x, c.descriptors.y, dy,
      c.descriptors.convolution, static_cast<cudnnConvolutionBwdFilterAlgo_t>(c.algorithm),
      workspace.data, static_cast<std::size_t>(workspace.bytes), kept, c.descriptors.w, dw));
}

}  // namespace nf::cuda
