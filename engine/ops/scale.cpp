#include "engine/ops/scale.h"

#include <cmath>

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kScale = "scale";
constexpr std::string_view kScaleInPlace = "scale_in_place";

class ScaleNode : public Node {
 public:
  explicit ScaleNode(double alpha) : Node(kScale), alpha_(alpha) {}

  void backward(Tensor dy, Gradients& gradients) override {
    Backend& backend = dy.backend();
    if (dy.unique()) {
      backend.scale(alpha_, dy.view(), dy.mutable_view());
      gradients.give(0, std::move(dy));
      return;
    }
    auto [dx, mode] = gradients.slot(0);
    if (mode == GradMode::accumulate)
      backend.axpy(alpha_, dy.view(), dx.mutable_view());
    else
      backend.scale(alpha_, dy.view(), dx.mutable_view());
  }

 private:
  double alpha_;
};

void check_scale(std::string_view op, const Tensor& x, double alpha) {
  detail::check_floating(op, "input", x);
  NF_CHECK(std::isfinite(alpha), "{}: alpha must be finite, got {}", op, alpha);
}

}  // namespace

Tensor scale(Tape* tape, const Tensor& x, double alpha) {
  const OpScope scope(kScale);
  check_scale(kScale, x, alpha);
  if (alpha == 1) return x;
  Tensor y = Tensor::empty(x.context(), x.shape(), x.dtype(), Category::activation);
  x.backend().scale(alpha, x.view(), y.mutable_view());
  if (Tape::wanted(tape, {&x})) tape->record(std::make_unique<ScaleNode>(alpha), {&x}, y);
  return y;
}

void scale_in_place(Tensor& x, double alpha) {
  check_scale(kScaleInPlace, x, alpha);
  NF_CHECK(!x.requires_grad() || x.is_leaf(),
           "scale_in_place: {} is the result of a recorded operator; use scale", x.shape().str());
  x.backend().scale(alpha, x.view(), x.mutable_view());
}

}  // namespace nf
