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

}  // namespace

CrossEntropy softmax_cross_entropy(Tape* tape, const Tensor& logits, const Tensor& labels,
                                   double label_smoothing) {
  const OpScope scope(kSoftmaxCrossEntropy);
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
  const ContextPtr& context = logits.context();
  CrossEntropy result{.loss = Tensor::empty(context, {1}, detail::statistics_dtype(logits.dtype()),
                                            Category::activation),
                      .correct = Tensor::empty(context, {1}, DType::i32, Category::activation)};
  {
    Backend& backend = logits.backend();
    const detail::Scratch scratch(
        context, backend.softmax_cross_entropy_workspace(logits.dim(0), logits.dim(1)));
    backend.softmax_cross_entropy_forward(logits.view(), labels.view(), label_smoothing,
                                          result.loss.mutable_view(), result.correct.mutable_view(),
                                          scratch);
  }
  if (Tape::wanted(tape, {&logits}))
    tape->record(std::make_unique<SoftmaxCrossEntropyNode>(label_smoothing, logits, labels),
                 {&logits}, result.loss);
  return result;
}

}  // namespace nf
