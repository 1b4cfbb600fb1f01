#include "nn/whole_net_trainer.h"

namespace nf::nn {

WholeNetTrainer::WholeNetTrainer(ContextPtr context, Model& model,
                                 const OptimizerOptions& optimizer, std::uint64_t seed)
    : context_(std::move(context)), model_(model) {
  model_.materialize(context_, seed);
  const UnitScope unit(model_.name());
  try {
    optimizer_ = std::make_unique<Optimizer>(model_.parameters(), optimizer);
  } catch (...) {
    model_.release();
    throw;
  }
}

WholeNetTrainer::~WholeNetTrainer() {
  optimizer_.reset();
  model_.release();
}

Trainable WholeNetTrainer::trainable() const {
  return {model_.name(), &model_, nullptr, optimizer_.get()};
}

DeviceBatch WholeNetTrainer::stage(const float* images, const std::int32_t* labels,
                                   std::int64_t size) const {
  return stage_batch(context_, model_.options().input, images, labels, size);
}

std::vector<StepResult> WholeNetTrainer::train_batch(const Batch& batch,
                                                     const StepOptions& options) {
  check_batch(batch, model_.options().input);
  return {train(batch.images.data(), batch.labels.data(), batch.size, options)};
}

std::vector<StepResult> WholeNetTrainer::evaluate_batch(const Batch& batch) {
  check_batch(batch, model_.options().input);
  return {evaluate(batch.images.data(), batch.labels.data(), batch.size)};
}

StepResult WholeNetTrainer::evaluate(const float* images, const std::int32_t* labels,
                                     std::int64_t size) {
  const UnitScope unit(model_.name());
  auto [x, y] = stage(images, labels, size);
  return evaluate_step(trainable(), std::move(x), y);
}

}  // namespace nf::nn
