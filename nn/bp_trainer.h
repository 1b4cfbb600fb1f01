// End-to-end backpropagation: the whole net on the device, one loss.
#pragma once

#include <memory>

#include "nn/fit.h"
#include "nn/model.h"

namespace nf::nn {

class BpTrainer : public BatchTrainer {
 public:
  /// Puts the model's parameters and the optimizer's state on the context; they leave it with the
  /// trainer. Throws OutOfBudget.
  BpTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
            std::uint64_t seed);
  ~BpTrainer() override;
  BpTrainer(const BpTrainer&) = delete;
  BpTrainer& operator=(const BpTrainer&) = delete;

  std::vector<std::string> outputs() const override { return {model_.name()}; }
  double learning_rate() const override { return optimizer_->options().learning_rate; }
  std::vector<StepResult> train_batch(const Batch& batch, const StepOptions& options) override;
  std::vector<StepResult> evaluate_batch(const Batch& batch) override;

  /// The same steps on memory that the caller holds; null on a meta context.
  StepResult train(const float* images, const std::int32_t* labels, std::int64_t size,
                   const StepOptions& options);
  StepResult evaluate(const float* images, const std::int32_t* labels, std::int64_t size);

 private:
  Trainable trainable() const;

  ContextPtr context_;
  Model& model_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace nf::nn
