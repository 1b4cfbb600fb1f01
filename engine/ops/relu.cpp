#include "engine/ops/relu.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

class ReluNode : public Node {
 public:
  ReluNode(std::string_view name, Activation activation, const Tensor& y)
      : Node(name), activation_(activation) {
    save(y);
  }

  void backward(Tensor dy, Gradients& gradients) override {
    Backend& backend = dy.backend();
    const ConstView y = saved_tensor(0).view();
    if (dy.unique()) {
      backend.relu_backward(activation_, y, dy.view(), dy.mutable_view(), GradMode::overwrite);
      release(0);
      gradients.give(0, std::move(dy));
      return;
    }
    auto [dx, mode] = gradients.slot(0);
    backend.relu_backward(activation_, y, dy.view(), dx.mutable_view(), mode);
  }

 private:
  Activation activation_;
};

Tensor rectify(Tape* tape, const Tensor& x, std::string_view name, Activation activation) {
  const OpScope scope(name);
  detail::check_floating(name, "input", x);
  Tensor y = Tensor::empty(x.context(), x.shape(), x.dtype(), Category::activation);
  x.backend().relu_forward(activation, x.view(), y.mutable_view());
  if (Tape::wanted(tape, {&x}))
    tape->record(std::make_unique<ReluNode>(name, activation, y), {&x}, y);
  return y;
}

}  // namespace

Tensor relu(Tape* tape, const Tensor& x) { return rectify(tape, x, "relu", Activation::relu); }

Tensor relu6(Tape* tape, const Tensor& x) { return rectify(tape, x, "relu6", Activation::relu6); }

}  // namespace nf
