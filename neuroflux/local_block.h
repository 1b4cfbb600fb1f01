// Consecutive units on the device together, each trained by its own loss in one pass over the data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/fit.h"
#include "nn/module.h"
#include "nn/optimizer.h"
#include "nn/state_dict.h"
#include "nn/step_runner.h"

namespace nf {

/// A unit of the net and the classifier that trains it; nothing is owned.
struct LocalUnit {
  std::string name;
  nn::Module* unit = nullptr;
  nn::Module* classifier = nullptr;
};

class LocalBlock : public nn::BatchTrainer {
 public:
  /// Puts the units, their classifiers and the optimizers' state on the context, one after the
  /// other, initialised by `seed`; they leave it with the block. `sample_shape` (H, W, C) is one
  /// sample of the block's input. It updates immediately unless the options say otherwise.
  /// Throws OutOfBudget.
  LocalBlock(ContextPtr context, std::vector<LocalUnit> units, const Shape& sample_shape,
             const nn::OptimizerOptions& optimizer, std::uint64_t seed);
  ~LocalBlock() override;
  LocalBlock(const LocalBlock&) = delete;
  LocalBlock& operator=(const LocalBlock&) = delete;

  std::vector<std::string> outputs() const override;
  double learning_rate() const override { return optimizer_options_.learning_rate; }
  nn::StepResults train_batch(const nn::Batch& batch, const nn::StepOptions& options) override;
  nn::StepResults evaluate_batch(const nn::Batch& batch) override;

  /// The same on memory that the caller holds.
  nn::StepResults train(const nn::HostBatch& batch, const nn::StepOptions& options);
  nn::StepResults evaluate(const nn::HostBatch& batch);
  /// The last unit's output in evaluation mode, (size, …) floats, to `output` (null: dropped).
  void forward(const nn::HostBatch& batch, float* output);

  /// Steps of the whole block that were replayed from a graph.
  std::int64_t replays() const { return runner_.replays(); }

  const Shape& sample_shape() const { return sample_shape_; }
  /// (H, W, C) of one sample of the block's output.
  const Shape& output_sample_shape() const { return output_sample_shape_; }

  /// Parameters and buffers of units and classifiers.
  nn::StateDict state() const;

  /// Of all optimizers.
  nn::StateDict optimizer_state() const;
  /// Takes saved values, bit for bit. Throws Error for a name that is missing or has another shape.
  void load(const nn::StateDict& state);
  void load_optimizers(const nn::StateDict& state);

  /// Takes everything off the device for a while and puts it back, bit for bit.
  void leave_device();
  void return_to_device();

 private:
  void place(const nn::StateDict* state);
  void release();
  nn::Trainable trainable(std::size_t i) const;
  RecycledVector<nn::Trainable> chain() const;

  ContextPtr context_;
  std::vector<LocalUnit> units_;
  Shape sample_shape_;
  Shape output_sample_shape_;
  nn::OptimizerOptions optimizer_options_;
  std::uint64_t seed_;
  std::vector<std::unique_ptr<nn::Optimizer>> optimizers_;
  nn::StepRunner runner_;
  nn::StateDict parked_state_;
  std::vector<nn::StateDict> parked_optimizers_;
};

}  // namespace nf
