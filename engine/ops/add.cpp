#include "engine/ops/add.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kAdd = "add";

class AddNode : public Node {
 public:
  AddNode() : Node(kAdd) {}

  // Both inputs get the same memory: whoever changes it first finds it shared and copies.
  void backward(Tensor dy, Gradients& gradients) override {
    if (gradients.wanted(0) && gradients.wanted(1)) gradients.give(0, dy);
    gradients.give(gradients.wanted(1) ? 1 : 0, std::move(dy));
  }
};

}  // namespace

Tensor add(Tape* tape, const Tensor& a, const Tensor& b) {
  const OpScope scope(kAdd);
  detail::check_floating(kAdd, "input", a);
  detail::check_alike(kAdd, "second input", b, a);
  NF_CHECK(a.shape() == b.shape(), "add: shapes differ ({} and {})", a.shape().str(),
           b.shape().str());
  Tensor y = Tensor::empty(a.context(), a.shape(), a.dtype(), Category::activation);
  a.backend().add(a.view(), b.view(), y.mutable_view());
  if (Tape::wanted(tape, {&a, &b})) tape->record(std::make_unique<AddNode>(), {&a, &b}, y);
  return y;
}

}  // namespace nf
