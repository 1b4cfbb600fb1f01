#include "engine/ops/reshape.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kReshape = "reshape";

class ReshapeNode : public Node {
 public:
  explicit ReshapeNode(const Shape& input) : Node(kReshape), input_(input) {}

  void backward(Tensor dy, Gradients& gradients) override {
    Tensor dx = dy.reshaped(input_);
    dy = Tensor();  // so that dx is the only handle again
    gradients.give(0, std::move(dx));
  }

 private:
  Shape input_;
};

}  // namespace

Tensor reshape(Tape* tape, const Tensor& x, const Shape& shape) {
  const OpScope scope(kReshape);
  NF_CHECK(static_cast<bool>(x), "reshape: the input is an empty tensor");
  const Tensor y = x.reshaped(shape);
  if (Tape::wanted(tape, {&x})) tape->record(std::make_unique<ReshapeNode>(x.shape()), {&x}, y);
  return y;
}

Tensor flatten(Tape* tape, const Tensor& x) {
  NF_CHECK(static_cast<bool>(x), "flatten: the input is an empty tensor");
  NF_CHECK(x.shape().rank() >= 1, "flatten: input must have a batch dimension, got {}",
           x.shape().str());
  return reshape(tape, x, {x.dim(0), x.shape().sample().numel()});
}

}  // namespace nf
