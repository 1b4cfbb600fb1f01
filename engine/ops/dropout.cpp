#include "engine/ops/dropout.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kDropout = "dropout";

class DropoutNode : public Node {
 public:
  DropoutNode(double p, PhiloxKey key) : Node(kDropout), p_(p), key_(key) {}

  void backward(Tensor dy, Gradients& gradients) override {
    Backend& backend = dy.backend();
    if (dy.unique()) {
      backend.dropout(p_, key_, dy.view(), dy.mutable_view(), GradMode::overwrite);
      gradients.give(0, std::move(dy));
      return;
    }
    auto [dx, mode] = gradients.slot(0);
    backend.dropout(p_, key_, dy.view(), dx.mutable_view(), mode);
  }

 private:
  double p_;
  PhiloxKey key_;
};

}  // namespace

Tensor dropout(Tape* tape, const Tensor& x, double p, PhiloxKey key) {
  const OpScope scope(kDropout);
  detail::check_floating(kDropout, "input", x);
  NF_CHECK(p >= 0 && p < 1, "dropout: p must be in [0, 1), got {}", p);
  if (p == 0) return x;
  Tensor y = Tensor::empty(x.context(), x.shape(), x.dtype(), Category::activation);
  x.backend().dropout(p, key, x.view(), y.mutable_view(), GradMode::overwrite);
  if (Tape::wanted(tape, {&x})) tape->record(std::make_unique<DropoutNode>(p, key), {&x}, y);
  return y;
}

}  // namespace nf
