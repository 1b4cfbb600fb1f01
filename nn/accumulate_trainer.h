// Backpropagation in micro-batches: their gradients are added up to those of the batch.
#pragma once

#include "nn/stage_batch.h"
#include "nn/whole_net_trainer.h"

namespace nf::nn {

/// One update per batch, with the gradient of the mean loss over the whole batch; what is on the
/// device at a time is a micro-batch, and all gradients. Unlike the batch at once: batch norms see
/// one micro-batch at a time (and move their running statistics once for each), and dropout masks
/// are drawn for each micro-batch; the first has those of the batch at once. It updates together,
/// whatever the options say: no gradient is finished before the last micro-batch.
class AccumulateTrainer : public WholeNetTrainer {
 public:
  /// `micro_batch`: samples on the device at a time, at most; the last of a batch may be fewer.
  /// Throws Error unless it is at least 1, OutOfBudget.
  AccumulateTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
                    std::uint64_t seed, std::int64_t micro_batch);

  std::int64_t micro_batch() const { return micro_batch_; }

  StepResult train(const HostBatch& batch, const StepOptions& options) override;
  StepResult evaluate(const HostBatch& batch) override;

 private:
  struct Part {
    DeviceBatch batch;
    std::int64_t index;
    double share;  ///< of the batch's samples
  };
  /// Calls `step` for each micro-batch; its results together are those of the batch.
  template <typename Step>
  StepResult for_each_part(const HostBatch& batch, const Step& step) const;

  std::int64_t micro_batch_;
};

}  // namespace nf::nn
