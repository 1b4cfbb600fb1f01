#include "nn/bp_trainer.h"

#include <utility>

namespace nf::nn {

BpTrainer::BpTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
                     std::uint64_t seed)
    : WholeNetTrainer(std::move(context), model, optimizer, seed), runner_(this->context()) {}

StepResult BpTrainer::train(const HostBatch& batch, const StepOptions& options) {
  const UnitScope unit(model().name());
  const Trainable net = trainable();
  return runner_.train({&net, 1}, batch, options).front();
}

}  // namespace nf::nn
