#include "nn/bp_trainer.h"

#include <utility>

namespace nf::nn {

BpTrainer::BpTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
                     std::uint64_t seed)
    : WholeNetTrainer(std::move(context), model, optimizer, seed),
      runner_(this->context(), model.options().input) {}

StepResult BpTrainer::train(const float* images, const std::int32_t* labels, std::int64_t size,
                            const StepOptions& options) {
  const UnitScope unit(model().name());
  return runner_.train({trainable()}, images, labels, size, options).front();
}

}  // namespace nf::nn
