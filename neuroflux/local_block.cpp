#include "neuroflux/local_block.h"

#include <utility>

#include "nn/stage_batch.h"

namespace nf {

LocalBlock::LocalBlock(ContextPtr context, std::vector<LocalUnit> units, const Shape& sample_shape,
                       const nn::OptimizerOptions& optimizer, std::uint64_t seed)
    : context_(std::move(context)),
      units_(std::move(units)),
      sample_shape_(sample_shape),
      optimizer_options_(optimizer),
      seed_(seed),
      runner_(context_) {
  NF_CHECK(!units_.empty(), "local block: no units");
  optimizer_options_.update = nn::update_moment(optimizer, nn::UpdateMoment::immediate);
  std::vector<std::int64_t> extents{1};
  for (const std::int64_t extent : sample_shape_.extents()) extents.push_back(extent);
  Shape shape{std::span<const std::int64_t>(extents)};
  for (const LocalUnit& unit : units_) shape = unit.unit->output_shape(shape);
  output_sample_shape_ = shape.sample();
  try {
    place(nullptr);
  } catch (...) {
    release();
    throw;
  }
}

LocalBlock::~LocalBlock() { release(); }

void LocalBlock::place(const nn::StateDict* state) {
  for (const LocalUnit& unit : units_) {
    const UnitScope scope(unit.name);
    std::vector<nn::Parameter*> parameters;
    for (nn::Module* module : {unit.unit, unit.classifier}) {
      if (state != nullptr)
        module->materialize(context_, *state);
      else
        module->materialize(context_, seed_);
      for (nn::Parameter* parameter : module->parameters()) parameters.push_back(parameter);
    }
    optimizers_.push_back(std::make_unique<nn::Optimizer>(parameters, optimizer_options_));
  }
}

void LocalBlock::release() {
  runner_.forget();
  optimizers_.clear();
  for (const LocalUnit& unit : units_) {
    unit.unit->release();
    unit.classifier->release();
  }
}

void LocalBlock::leave_device() {
  parked_state_ = state();
  parked_optimizers_.clear();
  for (const auto& optimizer : optimizers_) {
    parked_optimizers_.emplace_back();
    optimizer->save_state(parked_optimizers_.back());
  }
  release();
}

void LocalBlock::return_to_device() {
  place(&parked_state_);
  for (std::size_t i = 0; i < optimizers_.size(); ++i)
    optimizers_[i]->load_state(parked_optimizers_[i]);
  parked_state_.clear();
  parked_optimizers_.clear();
}

nn::StateDict LocalBlock::state() const {
  nn::StateDict state;
  for (const LocalUnit& unit : units_) {
    unit.unit->save(state);
    unit.classifier->save(state);
  }
  return state;
}

nn::StateDict LocalBlock::optimizer_state() const {
  nn::StateDict state;
  for (const auto& optimizer : optimizers_) optimizer->save_state(state);
  return state;
}

void LocalBlock::load(const nn::StateDict& state) {
  for (const LocalUnit& unit : units_) {
    unit.unit->load(state);
    unit.classifier->load(state);
  }
}

void LocalBlock::load_optimizers(const nn::StateDict& state) {
  for (const auto& optimizer : optimizers_) optimizer->load_state(state);
}

std::vector<std::string> LocalBlock::outputs() const {
  std::vector<std::string> names;
  for (const LocalUnit& unit : units_) names.push_back(unit.name);
  return names;
}

nn::Trainable LocalBlock::trainable(std::size_t i) const {
  return {units_[i].name, units_[i].unit, units_[i].classifier, optimizers_[i].get()};
}

RecycledVector<nn::Trainable> LocalBlock::chain() const {
  RecycledVector<nn::Trainable> chain;
  for (std::size_t i = 0; i < units_.size(); ++i) chain.push_back(trainable(i));
  return chain;
}

nn::StepResults LocalBlock::train_batch(const nn::Batch& batch, const nn::StepOptions& options) {
  return train(nn::host_batch(batch, sample_shape_), options);
}

nn::StepResults LocalBlock::evaluate_batch(const nn::Batch& batch) {
  return evaluate(nn::host_batch(batch, sample_shape_));
}

nn::StepResults LocalBlock::train(const nn::HostBatch& batch, const nn::StepOptions& options) {
  return runner_.train(chain(), batch, options);
}

nn::StepResults LocalBlock::evaluate(const nn::HostBatch& batch) {
  auto [x, y] = nn::stage_batch(context_, batch);
  nn::StepResults results;
  for (std::size_t i = 0; i < units_.size(); ++i) {
    Tensor next;
    const bool last = i + 1 == units_.size();
    results.push_back(
        nn::evaluate_step(trainable(i), std::exchange(x, Tensor()), y, last ? nullptr : &next));
    x = std::move(next);
  }
  return results;
}

void LocalBlock::forward(const nn::HostBatch& batch, float* output) {
  Tensor x = nn::stage_images(context_, batch);
  const PhaseScope phase("fill");
  for (const LocalUnit& unit : units_) x = unit.unit->forward({}, std::exchange(x, Tensor()));
  if (output != nullptr) x.copy_to_host(output);
}

}  // namespace nf
