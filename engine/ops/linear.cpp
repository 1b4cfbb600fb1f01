#include "engine/ops/linear.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kLinear = "linear";

class LinearNode : public Node {
 public:
  LinearNode(const LinearProblem& problem, const Tensor& x, const Tensor& w)
      : Node(kLinear), problem_(problem) {
    // Each is read only for the gradient of the other.
    save(w.requires_grad() ? x : Tensor());
    save(x.requires_grad() ? w : Tensor());
  }

  void backward(Tensor dy, Gradients& gradients) override {
    const ContextPtr& context = dy.context();
    Backend& backend = dy.backend();
    if (gradients.wanted(kWeight)) {
      auto [dw, mode] = gradients.slot(kWeight);
      const detail::Scratch scratch(
          context, backend.linear_workspace(problem_, Pass::backward_weight, mode));
      backend.linear_backward_weight(problem_, saved_tensor(0).view(), dy.view(), dw.mutable_view(),
                                     mode, scratch);
    }
    release(0);
    if (gradients.wanted(kBias)) {
      auto [db, mode] = gradients.slot(kBias);
      const std::int64_t channels = db.numel();
      const detail::Scratch scratch(
          context, backend.bias_backward_workspace(dy.numel() / channels, channels));
      backend.bias_backward(dy.view(), db.mutable_view(), mode, scratch);
    }
    if (gradients.wanted(kInput)) {
      auto [dx, mode] = gradients.slot(kInput);
      const detail::Scratch scratch(context,
                                    backend.linear_workspace(problem_, Pass::backward_input, mode));
      backend.linear_backward_input(problem_, dy.view(), saved_tensor(1).view(), dx.mutable_view(),
                                    mode, scratch);
    }
  }

 private:
  static constexpr std::size_t kInput = 0, kWeight = 1, kBias = 2;

  LinearProblem problem_;
};

LinearProblem linear_problem(const Shape& x, const Shape& w, DType dtype) {
  NF_CHECK(x.rank() == 2 && x.numel() > 0,
           "linear: input must be (N, I) with no empty dimension, got {}", x.str());
  NF_CHECK(w.rank() == 2 && w.numel() > 0,
           "linear: weight must be (O, I) with no empty dimension, got {}", w.str());
  NF_CHECK(x[1] == w[1], "linear: input has {} features, weight expects {} (input {}, weight {})",
           x[1], w[1], x.str(), w.str());
  return {.dtype = dtype, .n = x[0], .i = x[1], .o = w[0]};
}

}  // namespace

Tensor linear(Tape* tape, const Tensor& x, const Tensor& w, const Tensor& bias) {
  const OpScope scope(kLinear);
  detail::check_floating(kLinear, "input", x);
  detail::check_alike(kLinear, "weight", w, x);
  const LinearProblem problem = linear_problem(x.shape(), w.shape(), x.dtype());
  if (bias) detail::check_per_channel(kLinear, "bias", bias, x, problem.o);

  const ContextPtr& context = x.context();
  Tensor y = Tensor::empty(context, {problem.n, problem.o}, x.dtype(), Category::activation);
  {
    const detail::Scratch scratch(
        context, x.backend().linear_workspace(problem, Pass::forward, GradMode::overwrite));
    x.backend().linear_forward(problem, x.view(), w.view(), bias.view(), y.mutable_view(), scratch);
  }
  if (Tape::wanted(tape, {&x, &w, &bias}))
    tape->record(std::make_unique<LinearNode>(problem, x, w), {&x, &w, &bias}, y);
  return y;
}

}  // namespace nf
