#include "nn/train_step.h"

#include <cmath>

namespace nf::nn {
namespace {

StepResult read_back(const CrossEntropy& result) {
  return {static_cast<double>(result.loss.item<float>()), result.correct.item<std::int32_t>()};
}

// Lets the features go as soon as the head has them: the tape keeps what it needs.
Tensor classify(const Trainable& trainable, const Pass& pass, Tensor features) {
  if (trainable.head == nullptr) return features;
  return trainable.head->forward(pass, features);
}

CrossEntropy forward(const Trainable& trainable, const Pass& pass, Tensor input,
                     const Tensor& labels, double label_smoothing, Tensor* output) {
  const PhaseScope phase("forward");
  Tensor features = trainable.body->forward(pass, input);
  input = Tensor();
  if (output != nullptr) *output = features.detached();
  const Tensor logits = classify(trainable, pass, std::move(features));
  return softmax_cross_entropy_with_gradient(pass.tape, logits, labels, label_smoothing);
}

}  // namespace

GradientScope::~GradientScope() {
  const PhaseScope phase("update");
  optimizer_.zero_grad();
}

void check_loss(const Trainable& trainable, double loss, const StepOptions& options) {
  if (!std::isfinite(loss))
    fail_diverged("the loss of {} is {} (learning rate {:.3g})", trainable.name, loss,
                  trainable.optimizer->options().learning_rate * options.rate_factor);
}

StepResult read_loss(const Trainable& trainable, const CrossEntropy& result,
                     const StepOptions& options) {
  const StepResult step = read_back(result);
  check_loss(trainable, step.loss, options);
  return step;
}

LeafListener update_finished(Optimizer& optimizer, double factor) {
  if (!optimizer.immediate()) return {};
  return {
      .finished = [&optimizer, factor](
                      std::span<const Tensor> values) { optimizer.update_now(values, factor); },
      .rows =
          [&optimizer, factor](const Tensor& value, std::int64_t begin, const Tensor& gradient) {
            optimizer.update_rows_now(value, begin, gradient, factor);
          }};
}

StepResult add_gradients(const Trainable& trainable, Tensor input, const Tensor& labels,
                         const StepOptions& options, double share, Tensor* output,
                         const LeafListener& listener) {
  const UnitScope unit(trainable.name);
  Tape tape;
  const CrossEntropy result = forward(trainable, {&tape, true, options.dropout_key},
                                      std::move(input), labels, options.label_smoothing, output);
  const StepResult step = read_loss(trainable, result, options);
  if (share == 1.0) {
    tape.backward(result.loss, {}, listener);
    return step;
  }
  const PhaseScope phase("backward");
  tape.backward(result.loss,
                Tensor::full(result.loss.context(), {1}, share, result.loss.dtype(),
                             Category::activation_gradient),
                listener);
  return step;
}

StepResult train_step(const Trainable& trainable, Tensor input, const Tensor& labels,
                      const StepOptions& options, Tensor* output) {
  const UnitScope unit(trainable.name);
  const GradientScope gradients(*trainable.optimizer);
  const StepResult step = add_gradients(trainable, std::move(input), labels, options, 1.0, output,
                                        update_finished(*trainable.optimizer, options.rate_factor));
  const PhaseScope phase("update");
  trainable.optimizer->step(options.rate_factor);
  return step;
}

void capture_step(const Trainable& trainable, Tensor input, const Tensor& labels,
                  double label_smoothing, const std::uint64_t* dropout_key, StepSlot* slot,
                  Tensor* output) {
  const UnitScope unit(trainable.name);
  const GradientScope gradients(*trainable.optimizer);
  Tape tape;
  const CrossEntropy result =
      forward(trainable, {.tape = &tape, .training = true, .stored_dropout_key = dropout_key},
              std::move(input), labels, label_smoothing, output);
  Backend& backend = result.loss.backend();
  backend.copy({&slot->loss, DType::f32, {1}}, result.loss.view());
  backend.copy({&slot->correct, DType::i32, {1}}, result.correct.view());
  Optimizer& optimizer = *trainable.optimizer;
  const CapturedUpdate update{.decaying = &slot->decaying,
                              .others = &slot->others,
                              .loss = &slot->loss,
                              .norm = &slot->norm};
  LeafListener listener;
  if (optimizer.immediate())
    listener = {
        .finished = [&](std::span<const Tensor> values) { optimizer.capture_now(values, update); },
        .rows =
            [&](const Tensor& value, std::int64_t begin, const Tensor& gradient) {
              optimizer.capture_rows_now(value, begin, gradient, update);
            }};
  tape.backward(result.loss, {}, listener);
  const PhaseScope phase("update");
  optimizer.capture_step(update);
}

StepResult evaluate_step(const Trainable& trainable, Tensor input, const Tensor& labels,
                         Tensor* output) {
  const UnitScope unit(trainable.name);
  const PhaseScope phase("evaluate");
  const Pass pass{};
  Tensor features = trainable.body->forward(pass, input);
  input = Tensor();
  if (output != nullptr) *output = features;
  if (!labels) return {};
  const Tensor logits = classify(trainable, pass, std::move(features));
  return read_back(softmax_cross_entropy(nullptr, logits, labels));
}

}  // namespace nf::nn
