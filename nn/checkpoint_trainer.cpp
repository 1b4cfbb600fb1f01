#include "nn/checkpoint_trainer.h"

#include <cmath>

#include "nn/stage_batch.h"

namespace nf::nn {
namespace {

// Where a segment begins: what comes back to here is the gradient of the segment's input.
class SegmentInput : public Node {
 public:
  explicit SegmentInput(Tensor& gradient) : Node("segment_input"), gradient_(gradient) {}
  void backward(Tensor dy, Gradients&) override { gradient_ = std::move(dy); }

 private:
  Tensor& gradient_;
};

// The same memory, as something whose gradient goes to `gradient`.
Tensor begin_segment(Tape& tape, const Tensor& input, Tensor& gradient) {
  Tensor x = input.detached();
  tape.record(std::make_unique<SegmentInput>(gradient), {}, x);
  return x;
}

Segments checked(Segments segments, const Model& model) {
  if (segments.empty()) return sqrt_segments(model.unit_count());
  check_segments(segments, model.unit_count());
  return segments;
}

}  // namespace

Segments even_segments(std::int64_t units, std::int64_t count) {
  NF_CHECK(count >= 1 && count <= units, "checkpoint: {} segments of {} units", count, units);
  Segments segments;
  std::int64_t start = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    segments.push_back(start);
    start += units / count + (i < units % count ? 1 : 0);
  }
  return segments;
}

Segments sqrt_segments(std::int64_t units) {
  return even_segments(units, std::llround(std::sqrt(static_cast<double>(units))));
}

void check_segments(const Segments& segments, std::int64_t units) {
  NF_CHECK(!segments.empty() && segments.front() == 0,
           "checkpoint: the first of the segments must start at unit 0, got {}",
           segments.empty() ? "none" : std::to_string(segments.front()));
  for (std::size_t i = 1; i < segments.size(); ++i)
    NF_CHECK(segments[i] > segments[i - 1] && segments[i] < units,
             "checkpoint: segment {} must start after unit {} and before unit {}, got {}", i,
             segments[i - 1], units, segments[i]);
}

CheckpointTrainer::CheckpointTrainer(ContextPtr context, Model& model,
                                     const OptimizerOptions& optimizer, std::uint64_t seed,
                                     Segments segments)
    : WholeNetTrainer(std::move(context), model, optimizer, seed),
      segments_(checked(std::move(segments), model)) {}

Tensor CheckpointTrainer::forward(std::size_t segment, const Pass& pass, Tensor x) const {
  const bool ends = segment == last();
  const std::int64_t end = ends ? model().unit_count() : segments_[segment + 1];
  for (std::int64_t i = segments_[segment]; i < end; ++i) x = model().unit(i).forward(pass, x);
  return ends ? model().classify(pass, x) : x;
}

Tensor CheckpointTrainer::backward_from_loss(Tensor x, const Tensor& labels,
                                             const StepOptions& options, StepResult& result) const {
  Tensor input_gradient;
  Tape tape;
  CrossEntropy loss;
  {
    const PhaseScope phase("forward");
    if (last() > 0) x = begin_segment(tape, x, input_gradient);
    const Pass pass{.tape = &tape, .training = true, .dropout_key = options.dropout_key};
    const Tensor logits = forward(last(), pass, std::move(x));
    loss = softmax_cross_entropy(&tape, logits, labels, options.label_smoothing);
  }
  result = read_loss(trainable(), loss, options);
  tape.backward(loss.loss, {}, update_finished(optimizer(), options.rate_factor));
  return input_gradient;
}

Tensor CheckpointTrainer::backward(std::size_t segment, Tensor x, Tensor gradient,
                                   const StepOptions& options) const {
  Tensor input_gradient;
  Tape tape;
  Tensor output;
  {
    const PhaseScope phase("recompute");
    if (segment > 0) x = begin_segment(tape, x, input_gradient);
    const Pass pass{.tape = &tape,
                    .training = true,
                    .dropout_key = options.dropout_key,
                    .update_statistics = false};
    output = forward(segment, pass, std::move(x));
  }
  // Units without parameters at the beginning of the net want no gradient.
  if (output.requires_grad())
    tape.backward(std::move(output), std::move(gradient),
                  update_finished(optimizer(), options.rate_factor));
  return input_gradient;
}

StepResult CheckpointTrainer::train(const HostBatch& batch, const StepOptions& options) {
  const UnitScope unit(model().name());
  const GradientScope gradients(optimizer());
  auto [x, y] = stage_batch(context(), batch);
  RecycledVector<Tensor> inputs(segments_.size());  // of each segment
  inputs[0] = std::move(x);
  {
    const PhaseScope phase("forward");
    const Pass pass{.training = true, .dropout_key = options.dropout_key};
    for (std::size_t i = 0; i < last(); ++i) inputs[i + 1] = forward(i, pass, inputs[i]);
  }
  StepResult result;
  Tensor gradient = backward_from_loss(std::move(inputs.back()), y, options, result);
  for (std::size_t i = last(); i-- > 0;)
    gradient = backward(i, std::move(inputs[i]), std::move(gradient), options);
  const PhaseScope phase("update");
  optimizer().step(options.rate_factor);
  return result;
}

}  // namespace nf::nn
