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

// Beyond this a faster algorithm is not worth its memory here; smaller budgets should not pay more.
constexpr std::int64_t kWorkspaceCap = std::int64_t{64} << 20;

/// Shows units and phases in a profiler's time line.
class ProfilerRanges final : public ScopeObserver {
 public:
  void enter(const std::string& name) override { nvtxRangePushA(name.c_str()); }
  void leave() override { nvtxRangePop(); }
};

/// A device's libraries. They are slow to make, and what they chose once stays chosen: one set for
/// all backends of the process, which it keeps, for at its end the driver may be gone first.
struct Libraries {
  Libraries(Runtime& runtime, bool tf32)
      : runtime(runtime),
        convolutions(runtime.compute_stream(), {.tf32 = tf32, .workspace_cap = kWorkspaceCap}),
        products(runtime.compute_stream(), {.tf32 = tf32, .workspace_cap = kWorkspaceCap}) {}

  Runtime& runtime;
  Convolutions convolutions;
  Products products;
};

Libraries& libraries(const CudaOptions& options) {
  static std::mutex mutex;
  static auto& runtimes = *new std::map<int, std::unique_ptr<Runtime>>;
  static auto& all = *new std::map<std::pair<int, bool>, std::unique_ptr<Libraries>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Libraries>& found = all[{options.index, options.tf32}];
  if (found != nullptr) return *found;
  std::unique_ptr<Runtime>& runtime = runtimes[options.index];
  const bool first = runtime == nullptr;
  if (first) runtime = std::make_unique<Runtime>(options.index);
  found = std::make_unique<Libraries>(*runtime, options.tf32);
  if (first) {
    runtime->measure_context();
    static ProfilerRanges ranges;
    observe_scopes(&ranges);
  }
  return *found;
}

class CudaBackend final : public GpuBackend {
 public:
  explicit CudaBackend(const CudaOptions& options)
      : libraries_(libraries(options)), runtime_(libraries_.runtime) {}

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
    return libraries_.products.workspace(p, pass, mode);
  }
  void linear_backward_input(const LinearProblem& p, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    libraries_.products.backward_input(p, dy.data, w.data, dx.data, mode, workspace);
  }
  void linear_backward_weight(const LinearProblem& p, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    libraries_.products.backward_weight(p, x.data, dy.data, dw.data, mode, workspace);
  }

 protected:
  Stream stream() override { return runtime_.next_call(); }

  std::int64_t library_conv2d_workspace(const Conv2dProblem& p, Pass pass,
                                        GradMode) const override {
    return libraries_.convolutions.workspace(p, pass);
  }
  void library_conv2d_forward(const Conv2dProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    runtime_.next_call();
    libraries_.convolutions.forward(p, x.data, w.data, y.data, workspace);
  }
  void library_conv2d_backward_input(const Conv2dProblem& p, ConstView dy, ConstView w, View dx,
                                     GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    libraries_.convolutions.backward_input(p, dy.data, w.data, dx.data, mode, workspace);
  }
  void library_conv2d_backward_weight(const Conv2dProblem& p, ConstView x, ConstView dy, View dw,
                                      GradMode mode, Workspace workspace) override {
    runtime_.next_call();
    libraries_.convolutions.backward_weight(p, x.data, dy.data, dw.data, mode, workspace);
  }
  void library_linear_forward(const LinearProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    runtime_.next_call();
    libraries_.products.forward(p, x.data, w.data, y.data, workspace);
  }

 private:
  Libraries& libraries_;
  Runtime& runtime_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

}  // namespace nf
