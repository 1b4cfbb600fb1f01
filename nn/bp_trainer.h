// End-to-end backpropagation: the whole net on the device, one loss.
#pragma once

#include "nn/step_runner.h"
#include "nn/whole_net_trainer.h"

namespace nf::nn {

class BpTrainer : public WholeNetTrainer {
 public:
  BpTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
            std::uint64_t seed);

  StepResult train(const HostBatch& batch, const StepOptions& options) override;
  /// Steps that were replayed from a graph.
  std::int64_t replays() const { return runner_.replays(); }

 private:
  StepRunner runner_;
};

}  // namespace nf::nn
