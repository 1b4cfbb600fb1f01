// The GPU's kernels on the emulator, in host memory.
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "engine/backends/cpu/address_range.h"
#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"
#include "kernels/emulator/emulator.h"

namespace nf {
namespace simt {
namespace {

/// Calls that are captured, and what the pool did meanwhile: a replay grants and takes back as the
/// captured run did, so that kernels are watched as closely.
struct Capture {
  emulator::Calls calls;
  std::vector<std::size_t> marks;  // which of them grant or take back
  std::set<std::byte*> granted;
  std::map<std::byte*, std::int64_t> taken_back;  // of what was granted before

  void mark(std::function<void()> call) {
    marks.push_back(calls.size());
    calls.push_back(std::move(call));
  }
};
thread_local std::unique_ptr<Capture> capture;

void note_granted(std::byte* address, std::int64_t bytes) {
  emulator::add_memory(address, bytes);
  if (capture == nullptr) return;
  capture->mark([=] { emulator::add_memory(address, bytes); });
  capture->granted.insert(address);
}

void note_taken_back(std::byte* address, std::int64_t bytes) {
  emulator::remove_memory(address);
  if (capture == nullptr) return;
  capture->mark([=] { emulator::remove_memory(address); });
  if (capture->granted.erase(address) == 0) capture->taken_back[address] = bytes;
}

class EmulatedCalls final : public CapturedCalls {
 public:
  EmulatedCalls(emulator::Calls calls, std::vector<std::size_t> marks)
      : calls_(std::move(calls)), marks_(std::move(marks)) {}

  void replay() override {
    std::size_t next = 0;
    try {
      while (next < calls_.size()) calls_[next++]();
    } catch (...) {
      // What is granted must be as it was before, whatever failed.
      for (const std::size_t mark : marks_)
        if (mark >= next) calls_[mark]();
      throw;
    }
  }

 private:
  emulator::Calls calls_;
  std::vector<std::size_t> marks_;
};

/// Host memory of which kernels may touch what has been granted.
class EmulatedRange final : public AddressRange {
 public:
  explicit EmulatedRange(std::int64_t bytes) : host_(bytes) {}
  std::byte* base() const override { return host_.base(); }
  std::int64_t bytes() const override { return host_.bytes(); }
  void mark_granted(std::int64_t offset, std::int64_t bytes) override {
    host_.mark_granted(offset, bytes);
    note_granted(base() + offset, bytes);
  }
  void mark_free(std::int64_t offset, std::int64_t bytes) override {
    note_taken_back(base() + offset, bytes);
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
  void copy_from_host(View dst, const void* src) override {
    NF_CHECK(capture == nullptr, "simt: a copy from the host can't be captured");
    cpu_.copy_from_host(dst, src);
  }
  void copy_to_host(void* dst, ConstView src) override {
    NF_CHECK(capture == nullptr, "simt: a copy to the host can't be captured");
    cpu_.copy_to_host(dst, src);
  }

  bool captures() const override { return true; }
  void begin_capture() override {
    NF_CHECK(capture == nullptr, "simt: calls are being captured already");
    capture = std::make_unique<Capture>();
    emulator::record_to(&capture->calls);
  }
  std::unique_ptr<CapturedCalls> end_capture() override {
    NF_CHECK(capture != nullptr, "simt: no calls are being captured");
    const std::unique_ptr<Capture> done = std::move(capture);
    emulator::record_to(nullptr);
    NF_CHECK(done->granted.empty(), "simt: {} pieces granted in a capture outlive it",
             done->granted.size());
    // What a replay finds granted, it leaves granted.
    for (const auto& [address, bytes] : done->taken_back)
      done->mark([address = address, bytes = bytes] { emulator::add_memory(address, bytes); });
    return std::make_unique<EmulatedCalls>(std::move(done->calls), std::move(done->marks));
  }
  void abandon_capture() noexcept override {
    capture.reset();
    emulator::record_to(nullptr);
  }

  void softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                     View loss, View correct, Workspace workspace) override {
    check_labels(logits, labels);
    GpuBackend::softmax_cross_entropy_forward(logits, labels, smoothing, loss, correct, workspace);
  }
  void softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels, double smoothing,
                                              View loss, View correct, View dlogits,
                                              Workspace workspace) override {
    check_labels(logits, labels);
    GpuBackend::softmax_cross_entropy_forward_backward(logits, labels, smoothing, loss, correct,
                                                       dlogits, workspace);
  }

  std::int64_t linear_workspace(const LinearProblem& p, Pass pass, GradMode mode) const override {
    const std::int64_t x = p.n * p.i, w = p.o * p.i, y = p.n * p.o;
    const std::int64_t result = pass == Pass::forward ? y : pass == Pass::backward_input ? x : w;
    return Widened::bytes(p.dtype, {x, w, y, mode == GradMode::accumulate ? result : 0}) +
           cpu_.linear_workspace(in_f32(p), pass, inner(p.dtype, mode));
  }
  void linear_backward_input(const LinearProblem& p, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override {
    make([=, this] {
      Widened f32(cpu_, p.dtype, workspace);
      const ConstView wide_dy = f32.in(dy), wide_w = f32.in(w);
      const View wide_dx = f32.target(dx);
      cpu_.linear_backward_input(in_f32(p), wide_dy, wide_w, wide_dx, f32.mode(mode), f32.rest());
      f32.out(wide_dx, dx, mode);
    });
  }
  void linear_backward_weight(const LinearProblem& p, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override {
    make([=, this] {
      Widened f32(cpu_, p.dtype, workspace);
      const ConstView wide_x = f32.in(x), wide_dy = f32.in(dy);
      const View wide_dw = f32.target(dw);
      cpu_.linear_backward_weight(in_f32(p), wide_x, wide_dy, wide_dw, f32.mode(mode), f32.rest());
      f32.out(wide_dw, dw, mode);
    });
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
    make([=, this] {
      Widened f32(cpu_, p.dtype, workspace);
      const ConstView wide_x = f32.in(x), wide_w = f32.in(w);
      const View wide_y = f32.target(y);
      cpu_.conv2d_forward(in_f32(p), wide_x, wide_w, {}, {}, wide_y, f32.rest());
      f32.out(wide_y, y, GradMode::overwrite);
    });
  }
  void library_conv2d_backward_input(const Conv2dProblem& p, ConstView dy, ConstView w, View dx,
                                     GradMode mode, Workspace workspace) override {
    make([=, this] {
      Widened f32(cpu_, p.dtype, workspace);
      const ConstView wide_dy = f32.in(dy), wide_w = f32.in(w);
      const View wide_dx = f32.target(dx);
      cpu_.conv2d_backward_input(in_f32(p), wide_dy, wide_w, wide_dx, f32.mode(mode), f32.rest());
      f32.out(wide_dx, dx, mode);
    });
  }
  void library_conv2d_backward_weight(const Conv2dProblem& p, ConstView x, ConstView dy, View dw,
                                      GradMode mode, Workspace workspace) override {
    make([=, this] {
      Widened f32(cpu_, p.dtype, workspace);
      const ConstView wide_x = f32.in(x), wide_dy = f32.in(dy);
      const View wide_dw = f32.target(dw);
      cpu_.conv2d_backward_weight(in_f32(p), wide_x, wide_dy, wide_dw, f32.mode(mode), f32.rest());
      f32.out(wide_dw, dw, mode);
    });
  }
  void library_linear_forward(const LinearProblem& p, ConstView x, ConstView w, View y,
                              Workspace workspace) override {
    make([=, this] {
      Widened f32(cpu_, p.dtype, workspace);
      const ConstView wide_x = f32.in(x), wide_w = f32.in(w);
      const View wide_y = f32.target(y);
      cpu_.linear_forward(in_f32(p), wide_x, wide_w, {}, wide_y, f32.rest());
      f32.out(wide_y, y, GradMode::overwrite);
    });
  }

 private:
  // On a GPU a wrong label gives a loss that is not a number; here it can be named.
  void check_labels(ConstView logits, ConstView labels) {
    make([=] {
      const std::int64_t classes = logits.shape[1];
      const auto* label = elements<std::int32_t>("softmax_cross_entropy", labels);
      for (std::int64_t r = 0; r < labels.numel(); ++r)
        NF_CHECK(label[r] >= 0 && label[r] < classes,
                 "softmax_cross_entropy: label {} must be in [0, {}), got {}", r, classes,
                 label[r]);
    });
  }

  /// Makes a call that is no launch, or captures it.
  template <typename Call>
  static void make(const Call& call) {
    if (capture != nullptr)
      capture->calls.emplace_back(call);
    else
      call();
  }

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
