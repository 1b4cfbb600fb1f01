#include "nn/accumulate_trainer.h"

#include <algorithm>

#include "engine/random.h"

namespace nf::nn {
namespace {

std::int64_t checked(std::int64_t micro_batch) {
  NF_CHECK(micro_batch >= 1, "accumulate: the micro-batch must be at least 1, got {}", micro_batch);
  return micro_batch;
}

// With the step's own key all micro-batches would drop the same places.
StepOptions options_of_part(StepOptions options, std::int64_t index) {
  if (index > 0)
    options.dropout_key =
        random_key(options.dropout_key, Purpose::dropout, static_cast<std::uint64_t>(index));
  return options;
}

}  // namespace

AccumulateTrainer::AccumulateTrainer(ContextPtr context, Model& model,
                                     const OptimizerOptions& optimizer, std::uint64_t seed,
                                     std::int64_t micro_batch)
    : WholeNetTrainer(std::move(context), model, optimizer, seed),
      micro_batch_(checked(micro_batch)) {}

template <typename Step>
StepResult AccumulateTrainer::for_each_part(const HostBatch& batch, const Step& step) const {
  NF_CHECK(batch.size >= 1, "accumulate: a batch must have at least one sample, got {}",
           batch.size);
  StepResult whole;
  for (std::int64_t begin = 0; begin < batch.size; begin += micro_batch_) {
    const std::int64_t count = std::min(micro_batch_, batch.size - begin);
    const double share = static_cast<double>(count) / static_cast<double>(batch.size);
    const StepResult part =
        step(Part{stage_batch(context(), batch.part(begin, count)), begin / micro_batch_, share});
    whole.loss += share * part.loss;
    whole.correct += part.correct;
  }
  return whole;
}

StepResult AccumulateTrainer::train(const HostBatch& batch, const StepOptions& options) {
  const UnitScope unit(model().name());
  const GradientScope gradients(optimizer());
  const StepResult result = for_each_part(batch, [&](Part part) {
    return add_gradients(trainable(), std::move(part.batch.images), part.batch.labels,
                         options_of_part(options, part.index), part.share);
  });
  const PhaseScope phase("update");
  optimizer().step(options.rate_factor);
  return result;
}

StepResult AccumulateTrainer::evaluate(const HostBatch& batch) {
  const UnitScope unit(model().name());
  return for_each_part(batch, [&](Part part) {
    return evaluate_step(trainable(), std::move(part.batch.images), part.batch.labels);
  });
}

}  // namespace nf::nn
