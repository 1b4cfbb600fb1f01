// The GPU's kernels on the emulator, in host memory.
#include <cstring>
#include <vector>

#include "engine/backends/cpu/address_range.h"
#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"
#include "kernels/emulator/emulator.h"

namespace nf {
namespace simt {
namespace {

/// Host memory of which kernels may touch what has been granted.
class EmulatedRange final : public AddressRange {
 public:
  explicit EmulatedRange(std::int64_t bytes) : host_(bytes) {}
  std::byte* base() const override { return host_.base(); }
  std::int64_t bytes() const override { return host_.bytes(); }
  void mark_granted(std::int64_t offset, std::int64_t bytes) override {
    host_.mark_granted(offset, bytes);
    emulator::add_memory(base() + offset, bytes);
  }
  void mark_free(std::int64_t offset, std::int64_t bytes) override {
    emulator::remove_memory(base() + offset);
    host_.mark_free(offset, bytes);
  }

 private:
  cpu::HostRange host_;
};

/// f32 twins, in a workspace, of operands that are stored in 16 bits: the CPU's library computes in
/// f32. With f32 operands it is not there.
class Widened {
 public:
  Widened(Backend& cpu, DType dtype, Workspace workspace)
      : cpu_(cpu), wide_(dtype != DType::f32), rest_(workspace) {}

  static std::int64_t bytes(DType dtype, std::initializer_list<std::int64_t> counts) {
    std::int64_t sum = 0;
    if (dtype != DType::f32)
      for (const std::int64_t count : counts) sum += padded(count);
    return sum;
  }

  ConstView in(ConstView view) {
    if (!wide_) return view;
    const View twin = take(view.shape);
    cpu_.cast(view, twin);
    return twin;
  }
  /// Where the library writes; give `view` to `out` afterwards.
  View target(View view) { return wide_ ? take(view.shape) : view; }
  void out(View computed, View view, GradMode mode) {
    if (!wide_) return;
    if (mode == GradMode::accumulate) {
      const View sum = take(view.shape);
      cpu_.cast(view, sum);
      cpu_.axpy(1.0, sum, computed);
    }
    cpu_.cast(computed, view);
  }
  GradMode mode(GradMode mode) const { return wide_ ? GradMode::overwrite : mode; }
  Workspace rest() const { return rest_; }

 private:
  static std::int64_t padded(std::int64_t count) { return (4 * count + 255) / 256 * 256; }
  View take(const Shape& shape) {
    const std::int64_t bytes = padded(shape.numel());
    NF_CHECK(rest_.bytes >= bytes, "simt: a workspace is {} bytes too small", bytes - rest_.bytes);
    const View view{rest_.data, DType::f32, shape};
    rest_.data += bytes;
    rest_.bytes -= bytes;
    return view;
  }

  Backend& cpu_;
  bool wide_;
  Workspace rest_;
};

template <typename Problem>
Problem in_f32(Problem problem) {
  problem.dtype = DType::f32;
  return problem;
}

class SimtBackend final : public GpuBackend {
 public:
  explicit SimtBackend(const CpuOptions& options) : cpu_(options) {}

  std::string_view name() const override { return "simt"; }
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes) override {
    return std::make_unique<EmulatedRange>(bytes);
  }
  std::int64_t memory_bytes() const override { return cpu_.memory_bytes(); }
  int threads() const override { return cpu_.threads(); }
  void synchronize() override {}
  void copy_from_host(View dst, const void* src) override { cpu_.copy_from_host(dst, src); }
  void copy_to_host(void* dst, ConstView src) override { cpu_.copy_to_host(dst, src); }

  void softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                     View loss, View correct, Workspace workspace) override {
    const std::int64_t classes = logits.shape[1];
    const auto* label = elements<std::int32_t>("softmax_cross_entropy", labels);
    for (std::int64_t r = 0; r < labels.numel(); ++r)
      NF_CHECK(label[r] >= 0 && label[r] < classes,
               "softmax_cross_entropy: label {} must be in [0, {}), got {}", r, classes, label[r]);
    GpuBackend::softmax_cross_entropy_forward(logits, labels, smoothing, loss, correct, workspace);
  }

  std::int64_t linear_workspace(const LinearProblem& p, Pass pass, GradMode mode) const override {
    const std::int64_t x = p.n * p.i, w = p.o * p.i, y = p.n * p.o;
    const std::int64_t result = pass == Pass::forward ? y : pass == Pass::backward_input ? x : w;
    return Widened::bytes(p.dtype, {x, w, y, mode == GradMode::accumulate ? result : 0}) +
           cpu_.linear_workspace(in_f32(p), pass, inner(p.dtype, mode));
  }
  void linear_backward_input(const LinearProblem& p, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override {
    Widened f32(cpu_, p.dtype, workspace);
    const ConstView wide_dy = f32.in(dy), wide_w = f32.in(w);
    const View wide_dx = f32.target(dx);
    cpu_.linear_backward_input(in_f32(p), wide_dy, wide_w, wide_dx, f32.mode(mode), f32.rest());
    f32.out(wide_dx, dx, mode);
  }
  void linear_backward_weight(const LinearProblem& p, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override {
    Widened f32(cpu_, p.dtype, workspace);
    const ConstView wide_x = f32.in(x), wide_dy = f32.in(dy);
    const View wide_dw = f32.target(dw);
    cpu_.linear_backward_weight(in_f32(p), wide_x, wide_dy, wide_dw, f32.mode(mode), f32.rest());
    f32.out(wide_dw, dw, mode);
  }

 protected:
  Stream stream() override { return nullptr; }

  std::int64_t library_conv2d_workspace(const Conv2dProblem& p, Pass pass,
                                        GradMode mode) const override {
    const std::int64_t x = p.n * p.h * p.w * p.c, w = p.o * p.kh * p.kw * p.c / p.groups,
                       y = p.n * p.out_h() * p.out_w() * p.o;
    const std::int64_t result = pass == Pass::forward ? y : pass == Pass::backward_input ? x : w;
    return Widened::bytes(p.dtype, {x, w, y, mode == GradMode::accumulate ? result : 0}) +
           cpu_.conv2d_workspace(in_f32(p), pass, inner(p.dtype, mode));
  }
  void library_conv2d_forward(const Conv2dProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    Widened f32(cpu_, p.dtype, workspace);
    const ConstView wide_x = f32.in(x), wide_w = f32.in(w);
    const View wide_y = f32.target(y);
    cpu_.conv2d_forward(in_f32(p), wide_x, wide_w, {}, {}, wide_y, f32.rest());
    f32.out(wide_y, y, GradMode::overwrite);
  }
  void library_conv2d_backward_input(const Conv2dProblem& p, ConstView dy, ConstView w, View dx,
                                     GradMode mode, Workspace workspace) override {
    Widened f32(cpu_, p.dtype, workspace);
    const ConstView wide_dy = f32.in(dy), wide_w = f32.in(w);
    const View wide_dx = f32.target(dx);
    cpu_.conv2d_backward_input(in_f32(p), wide_dy, wide_w, wide_dx, f32.mode(mode), f32.rest());
    f32.out(wide_dx, dx, mode);
  }
  void library_conv2d_backward_weight(const Conv2dProblem& p, ConstView x, ConstView dy, View dw,
                                      GradMode mode, Workspace workspace) override {
    Widened f32(cpu_, p.dtype, workspace);
    const ConstView wide_x = f32.in(x), wide_dy = f32.in(dy);
    const View wide_dw = f32.target(dw);
    cpu_.conv2d_backward_weight(in_f32(p), wide_x, wide_dy, wide_dw, f32.mode(mode), f32.rest());
    f32.out(wide_dw, dw, mode);
  }
  void library_linear_forward(const LinearProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    Widened f32(cpu_, p.dtype, workspace);
    const ConstView wide_x = f32.in(x), wide_w = f32.in(w);
    const View wide_y = f32.target(y);
    cpu_.linear_forward(in_f32(p), wide_x, wide_w, {}, wide_y, f32.rest());
    f32.out(wide_y, y, GradMode::overwrite);
  }

 private:
  /// What the CPU's library is asked for: sums of 16-bit results are made outside of it.
  static GradMode inner(DType dtype, GradMode mode) {
    return dtype == DType::f32 ? mode : GradMode::overwrite;
  }

  mutable cpu::CpuBackend cpu_;
};

}  // namespace
}  // namespace simt

std::unique_ptr<Backend> make_simt_backend(const CpuOptions& options) {
  return std::make_unique<simt::SimtBackend>(options);
}

}  // namespace nf
