#include "nn/bp_trainer.h"

namespace nf::nn {

BpTrainer::BpTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
                     std::uint64_t seed)
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

BpTrainer::~BpTrainer() {
  optimizer_.reset();
  model_.release();
}

Trainable BpTrainer::trainable() const {
  return {model_.name(), &model_, nullptr, optimizer_.get()};
}

std::vector<StepResult> BpTrainer::train_batch(const Batch& batch, const StepOptions& options) {
  check_batch(batch, model_.options().input);
  return {train(batch.images.data(), batch.labels.data(), batch.size, options)};
}

std::vector<StepResult> BpTrainer::evaluate_batch(const Batch& batch) {
  check_batch(batch, model_.options().input);
  return {evaluate(batch.images.data(), batch.labels.data(), batch.size)};
}

StepResult BpTrainer::train(const float* images, const std::int32_t* labels, std::int64_t size,
                            const StepOptions& options) {
  const UnitScope unit(model_.name());
  auto [x, y] = stage_batch(context_, model_.options().input, images, labels, size);
  return train_step(trainable(), std::move(x), y, options);
}

StepResult BpTrainer::evaluate(const float* images, const std::int32_t* labels, std::int64_t size) {
  const UnitScope unit(model_.name());
  auto [x, y] = stage_batch(context_, model_.options().input, images, labels, size);
  return evaluate_step(trainable(), std::move(x), y);
}

}  // namespace nf::nn
