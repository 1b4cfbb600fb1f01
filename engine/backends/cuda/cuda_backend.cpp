// A CUDA device: our kernels, cuDNN's convolutions, cuBLAS's matrix products.
#include <nvtx3/nvToolsExt.h>

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/backends/cuda/check.h"
#include "engine/backends/cuda/conv2d_cudnn.h"
#include "engine/backends/cuda/linear_cublas.h"
#include "engine/backends/cuda/runtime.h"
#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf {
namespace cuda {
namespace {

/// Shows units and phases in a profiler's time line.
class ProfilerRanges final : public ScopeObserver {
 public:
  void enter(const std::string& name) override { nvtxRangePushA(name.c_str()); }
  void leave() override { nvtxRangePop(); }
};

/// What libraries chose to compute by, under one set of options.
struct Algorithms {
  Convolutions convolutions;
  Products products;
};

/// A device and its libraries. They are slow to make, and what they chose once stays chosen: one
/// set for all backends of the process, which it keeps, for at its end the driver may be gone
/// first.
class Libraries {
 public:
  explicit Libraries(int index) : runtime_(index), cudnn_(runtime_.compute_stream()) {
    runtime_.measure_context();
  }

  Runtime& runtime() { return runtime_; }
  Algorithms& algorithms(bool tf32, std::int64_t workspace_cap) {
    const std::lock_guard lock(algorithms_mutex_);
    std::unique_ptr<Algorithms>& found = algorithms_[{tf32, workspace_cap}];
    if (found == nullptr)
      found.reset(new Algorithms{
          {cudnn_, {.tf32 = tf32, .workspace_cap = workspace_cap}},
          {cublas_, runtime_.compute_stream(), {.tf32 = tf32, .workspace_cap = workspace_cap}}});
    return *found;
  }

 private:
  Runtime runtime_;
  CudnnHandle cudnn_;
  CublasHandle cublas_;
  std::mutex algorithms_mutex_;
  std::map<std::pair<bool, std::int64_t>, std::unique_ptr<Algorithms>> algorithms_;
};

Libraries& libraries(int index) {
  static std::mutex mutex;
  static auto& all = *new std::map<int, std::unique_ptr<Libraries>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Libraries>& found = all[index];
  if (found == nullptr) {
    found = std::make_unique<Libraries>(index);
    static ProfilerRanges ranges;
    observe_scopes(&ranges);
  }
  return *found;
}

/// One launch of a graph, however many calls it holds.
class GraphCalls final : public CapturedCalls {
 public:
  GraphCalls(Runtime& runtime, cudaGraphExec_t graph) : runtime_(runtime), graph_(graph) {}
  ~GraphCalls() override { cudaGraphExecDestroy(graph_); }
  GraphCalls(const GraphCalls&) = delete;
  GraphCalls& operator=(const GraphCalls&) = delete;

  void replay() override { runtime_.launch(graph_); }

 private:
  Runtime& runtime_;
  cudaGraphExec_t graph_;
};

class CudaBackend final : public GpuBackend {
 public:
  explicit CudaBackend(const CudaOptions& options)
      : runtime_(libraries(options.index).runtime()),
        algorithms_(libraries(options.index).algorithms(options.tf32, options.workspace_cap)) {}

  std::string_view name() const override { return "cuda"; }
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes) override {
    return runtime_.reserve(bytes);
  }
  /// Nine tenths of what is free: libraries load their kernels as they are first used. Half, where
  /// the host lives in the same memory.
  std::int64_t memory_bytes() const override {
    return runtime_.integrated() ? runtime_.free_bytes() / 2 : runtime_.free_bytes() / 10 * 9;
  }
  /// Libraries have bf16 from Ampere on.
  bool computes_in(DType dtype) const override {
    return GpuBackend::computes_in(dtype) && (dtype != DType::bf16 || runtime_.capability() >= 80);
  }
  std::int64_t context_bytes() const override { return runtime_.context_bytes(); }
  int threads() const override { return 1; }
  void synchronize() override { runtime_.synchronize(); }
  bool captures() const override { return true; }
  void begin_capture() override { runtime_.begin_capture(); }
  std::unique_ptr<CapturedCalls> end_capture() override {
    return std::make_unique<GraphCalls>(runtime_, runtime_.end_capture());
  }
  void abandon_capture() noexcept override { runtime_.abandon_capture(); }

  void copy_from_host(View dst, const void* src) override {
    runtime_.copy_from_host(dst.data, src, dst.numel() * size_of(dst.dtype));
  }
  void copy_to_host(void* dst, ConstView src) override {
    runtime_.copy_to_host(dst, src.data, src.numel() * size_of(src.dtype));
  }

  std::int64_t linear_workspace(const LinearProblem& p, Pass pass, GradMode mode) const override {
    runtime_.select();
    return algorithms_.products.workspace(p, pass, mode);
  }
  void linear_backward_input(const LinearProblem& p, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    algorithms_.products.backward_input(p, dy.data, w.data, dx.data, mode, workspace);
  }
  void linear_backward_weight(const LinearProblem& p, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    algorithms_.products.backward_weight(p, x.data, dy.data, dw.data, mode, workspace);
  }

 protected:
  Stream stream() override { return runtime_.next_call(); }

  std::int64_t library_conv2d_workspace(const Conv2dProblem& p, Pass pass,
                                        GradMode) const override {
    runtime_.select();
    return algorithms_.convolutions.workspace(p, pass);
  }
  void library_conv2d_forward(const Conv2dProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    runtime_.next_call();
    algorithms_.convolutions.forward(p, x.data, w.data, y.data, workspace);
  }
  void library_conv2d_backward_input(const Conv2dProblem& p, ConstView dy, ConstView w, View dx,
                                     GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    algorithms_.convolutions.backward_input(p, dy.data, w.data, dx.data, mode, workspace);
  }
  void library_conv2d_backward_weight(const Conv2dProblem& p, ConstView x, ConstView dy, View dw,
                                      GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    algorithms_.convolutions.backward_weight(p, x.data, dy.data, dw.data, mode, workspace);
  }
  void library_linear_forward(const LinearProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    runtime_.next_call();
    algorithms_.products.forward(p, x.data, w.data, y.data, workspace);
  }

 private:
  Runtime& runtime_;
  Algorithms& algorithms_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

}  // namespace nf
