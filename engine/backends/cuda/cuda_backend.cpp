// A CUDA device: our kernels, cuDNN's convolutions, cuBLAS's matrix products.
#include <nvtx3/nvToolsExt.h>

#include "engine/backends/cuda/check.h"
#include "engine/backends/cuda/conv2d_cudnn.h"
#include "engine/backends/cuda/linear_cublas.h"
#include "engine/backends/cuda/runtime.h"
#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf {
namespace cuda {
namespace {

// Beyond this a faster algorithm is not worth its memory here; smaller budgets should not pay more.
constexpr std::int64_t kWorkspaceCap = std::int64_t{64} << 20;

/// Shows units and phases in a profiler's time line.
class ProfilerRanges final : public ScopeObserver {
 public:
  void enter(const std::string& name) override { nvtxRangePushA(name.c_str()); }
  void leave() override { nvtxRangePop(); }
};

class CudaBackend final : public GpuBackend {
 public:
  explicit CudaBackend(const CudaOptions& options)
      : runtime_(options.index),
        convolutions_(runtime_.compute_stream(),
                      {.tf32 = options.tf32, .workspace_cap = kWorkspaceCap}),
        products_(runtime_.compute_stream(),
                  {.tf32 = options.tf32, .workspace_cap = kWorkspaceCap}) {
    runtime_.measure_context();
    static ProfilerRanges ranges;
    observe_scopes(&ranges);
  }

  std::string_view name() const override { return "cuda"; }
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes) override {
    return runtime_.reserve(bytes);
  }
  /// Nine tenths of what is free: libraries load their kernels as they are first used.
  std::int64_t memory_bytes() const override { return runtime_.free_bytes() / 10 * 9; }
  std::int64_t context_bytes() const override { return runtime_.context_bytes(); }
  int threads() const override { return 1; }
  void synchronize() override { runtime_.synchronize(); }

  void copy_from_host(View dst, const void* src) override {
    runtime_.copy_from_host(dst.data, src, dst.numel() * size_of(dst.dtype));
  }
  void copy_to_host(void* dst, ConstView src) override {
    runtime_.copy_to_host(dst, src.data, src.numel() * size_of(src.dtype));
  }

  std::int64_t linear_workspace(const LinearProblem& p, Pass pass, GradMode mode) const override {
    return products_.workspace(p, pass, mode);
  }
  void linear_backward_input(const LinearProblem& p, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override {
    runtime_.select();
    products_.backward_input(p, dy.data, w.data, dx.data, mode, workspace);
  }
  void linear_backward_weight(const LinearProblem& p, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override {
    runtime_.select();
    products_.backward_weight(p, x.data, dy.data, dw.data, mode, workspace);
  }

 protected:
  Stream stream() override {
    runtime_.select();
    return runtime_.compute_stream();
  }

  std::int64_t library_conv2d_workspace(const Conv2dProblem& p, Pass pass,
                                        GradMode) const override {
    return convolutions_.workspace(p, pass);
  }
  void library_conv2d_forward(const Conv2dProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    runtime_.select();
    convolutions_.forward(p, x.data, w.data, y.data, workspace);
  }
  void library_conv2d_backward_input(const Conv2dProblem& p, ConstView dy, ConstView w, View dx,
                                     GradMode mode, Workspace workspace) override {
    runtime_.select();
    convolutions_.backward_input(p, dy.data, w.data, dx.data, mode, workspace);
  }
  void library_conv2d_backward_weight(const Conv2dProblem& p, ConstView x, ConstView dy, View dw,
                                      GradMode mode, Workspace workspace) override {
    runtime_.select();
    convolutions_.backward_weight(p, x.data, dy.data, dw.data, mode, workspace);
  }
  void library_linear_forward(const LinearProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    runtime_.select();
    products_.forward(p, x.data, w.data, y.data, workspace);
  }

 private:
  Runtime runtime_;
  Convolutions convolutions_;
  Products products_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

}  // namespace nf
