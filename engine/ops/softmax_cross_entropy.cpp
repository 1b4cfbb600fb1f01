#include "engine/ops/softmax_cross_entropy.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kSoftmaxCrossEntropy = "softmax_cross_entropy";

class SoftmaxCrossEntropyNode : public Node {
 public:
  SoftmaxCrossEntropyNode(double smoothing, const Tensor& logits, const Tensor& labels)
      : Node(kSoftmaxCrossEntropy), smoothing_(smoothing) {
    save(logits);
    save(labels);
  }

  void backward(Tensor dy, Gradients& gradients) override {
    auto [dlogits, mode] = gradients.slot(0);
    dy.backend().softmax_cross_entropy_backward(saved_tensor(0).view(), saved_tensor(1).view(),
                                                smoothing_, dy.view(), dlogits.mutable_view(),
                                                mode);
  }

 private:
  double smoothing_;
};

class ComputedGradientNode : public Node {
 public:
  explicit ComputedGradientNode(const Tensor& dlogits) : Node(kSoftmaxCrossEntropy) {
    save(dlogits);
  }

  void backward(Tensor dy, Gradients& gradients) override {
    Tensor dlogits = saved_tensor(0);
    release(0);
    if (!gradients.from_ones())
      dlogits.backend().scale(scalar(dy), dlogits.view(), dlogits.mutable_view());
    gradients.give(0, std::move(dlogits));
  }

 private:
  static double scalar(const Tensor& dy) {
    return dy.dtype() == DType::f64 ? dy.item<double>() : double{dy.item<float>()};
  }
};

void check_operands(const Tensor& logits, const Tensor& labels, double label_smoothing) {
  detail::check_floating(kSoftmaxCrossEntropy, "input", logits);
  detail::check_together(kSoftmaxCrossEntropy, "labels", labels, logits);
  NF_CHECK(logits.shape().rank() == 2 && logits.numel() > 0,
           "softmax_cross_entropy: input must be (N, C) with no empty dimension, got {}",
           logits.shape().str());
  NF_CHECK(labels.dtype() == DType::i32, "softmax_cross_entropy: labels must be i32, got {}",
           to_string(labels.dtype()));
  NF_CHECK(labels.shape() == Shape({logits.dim(0)}),
           "softmax_cross_entropy: labels must be [{}], got {} (input {})", logits.dim(0),
           labels.shape().str(), logits.shape().str());
  NF_CHECK(label_smoothing >= 0 && label_smoothing < 1,
           "softmax_cross_entropy: label smoothing must be in [0, 1), got {}", label_smoothing);
}

CrossEntropy empty_result(const Tensor& logits) {
  const ContextPtr& context = logits.context();
  return {.loss = Tensor::empty(context, {1}, detail::statistics_dtype(logits.dtype()),
                                Category::activation),
          .correct = Tensor::empty(context, {1}, DType::i32, Category::activation)};
}

detail::Scratch scratch_for(const Tensor& logits) {
  return {logits.context(),
          logits.backend().softmax_cross_entropy_workspace(logits.dim(0), logits.dim(1))};
}

}  // namespace

CrossEntropy softmax_cross_entropy(Tape* tape, const Tensor& logits, const Tensor& labels,
                                   double label_smoothing) {
  const OpScope scope(kSoftmaxCrossEntropy);
  check_operands(logits, labels, label_smoothing);
  CrossEntropy result = empty_result(logits);
  logits.backend().softmax_cross_entropy_forward(
      logits.view(), labels.view(), label_smoothing, result.loss.mutable_view(),
      result.correct.mutable_view(), scratch_for(logits));
  if (Tape::wanted(tape, {&logits}))
    tape->record(std::make_unique<SoftmaxCrossEntropyNode>(label_smoothing, logits, labels),
                 {&logits}, result.loss);
  return result;
}

CrossEntropy softmax_cross_entropy_with_gradient(Tape* tape, const Tensor& logits,
                                                 const Tensor& labels, double label_smoothing) {
  if (!Tape::wanted(tape, {&logits}))
    return softmax_cross_entropy(nullptr, logits, labels, label_smoothing);
  const OpScope scope(kSoftmaxCrossEntropy);
  check_operands(logits, labels, label_smoothing);
  CrossEntropy result = empty_result(logits);
  Tensor dlogits = Tensor::empty(logits.context(), logits.shape(), logits.dtype(),
                                 Category::activation_gradient);
  logits.backend().softmax_cross_entropy_forward_backward(
      logits.view(), labels.view(), label_smoothing, result.loss.mutable_view(),
      result.correct.mutable_view(), dlogits.mutable_view(), scratch_for(logits));
  tape->record(std::make_unique<ComputedGradientNode>(dlogits), {&logits}, result.loss);
  return result;
}

}  // namespace nf
