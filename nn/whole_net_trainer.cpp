#include "nn/whole_net_trainer.h"

#include "nn/stage_batch.h"

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

void WholeNetTrainer::save(StateDict& weights, StateDict& optimizer) const {
  model_.save(weights);
  optimizer_->save_state(optimizer);
}

void WholeNetTrainer::restore(const StateDict& weights, const StateDict& optimizer) {
  model_.load(weights);
  optimizer_->load_state(optimizer);
}

Trainable WholeNetTrainer::trainable() const {
  return {model_.name(), &model_, nullptr, optimizer_.get()};
}

StepResults WholeNetTrainer::train_batch(const Batch& batch, const StepOptions& options) {
  return {train(host_batch(batch, model_.options().input), options)};
}

StepResults WholeNetTrainer::evaluate_batch(const Batch& batch) {
  return {evaluate(host_batch(batch, model_.options().input))};
}

StepResult WholeNetTrainer::evaluate(const HostBatch& batch) {
  const UnitScope unit(model_.name());
  auto [x, y] = stage_batch(context_, batch);
  return evaluate_step(trainable(), std::move(x), y);
}

}  // namespace nf::nn
