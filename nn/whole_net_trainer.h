// What every method has that keeps the whole net on the device and trains it with one loss.
#pragma once

#include <memory>

#include "nn/fit.h"
#include "nn/model.h"

namespace nf::nn {

class WholeNetTrainer : public BatchTrainer {
 public:
  /// Puts the model's parameters and the optimizer's state on the context; they leave it with the
  /// trainer. It updates together unless the options say otherwise. Throws OutOfBudget.
  WholeNetTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
                  std::uint64_t seed);
  ~WholeNetTrainer() override;
  WholeNetTrainer(const WholeNetTrainer&) = delete;
  WholeNetTrainer& operator=(const WholeNetTrainer&) = delete;

  std::vector<std::string> outputs() const override { return {model_.name()}; }
  double learning_rate() const override { return optimizer_->options().learning_rate; }
  StepResults train_batch(const Batch& batch, const StepOptions& options) override;
  StepResults evaluate_batch(const Batch& batch) override;

  /// The same steps on memory that the caller holds. What they throw and what they promise then is
  /// what train_step says.
  virtual StepResult train(const HostBatch& batch, const StepOptions& options) = 0;
  virtual StepResult evaluate(const HostBatch& batch);

  /// Parameters, buffers and the optimizer's state.
  void save(StateDict& weights, StateDict& optimizer) const;
  /// Goes on from there, bit for bit. Throws Error for a name that is missing or has another shape.
  void restore(const StateDict& weights, const StateDict& optimizer);

 protected:
  Trainable trainable() const;
  const ContextPtr& context() const { return context_; }
  Model& model() const { return model_; }
  Optimizer& optimizer() const { return *optimizer_; }

 private:
  ContextPtr context_;
  Model& model_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace nf::nn
