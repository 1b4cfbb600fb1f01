// Training steps of one trainer, batch after batch: one by one, or, on a context with graphs,
// captured once and replayed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "nn/train_step.h"

namespace nf::nn {

/// Trainables that take a batch one after the other, each the detached features of the one before.
using Chain = std::vector<Trainable>;

/// With graphs the second step in a row with one batch size is captured and replayed at once, and
/// so are later steps of that size as long as the pool would grant the same addresses; all others
/// are made call by call. Results, memory and peaks are the same either way, to the bit and the
/// byte. A replay does not ask the pool again for what it uses: its step shows in no trace, so
/// where a trace is kept steps are made call by call.
class StepRunner {
 public:
  /// `sample_shape` (H, W, C) is one sample of the chain's input.
  StepRunner(ContextPtr context, const Shape& sample_shape)
      : context_(std::move(context)), sample_shape_(sample_shape) {}

  /// Stages `size` samples, images (size, H, W, C) and labels, and trains each of `chain` on them.
  /// The chain must be the same in each call until forget(). Null pointers are allowed on a meta
  /// context. Throws as train_step does; in a replay those behind the one that failed have trained.
  std::vector<StepResult> train(const Chain& chain, const float* images, const std::int32_t* labels,
                                std::int64_t size, const StepOptions& options);

  /// To be called before parameters or optimizers leave their memory.
  void forget();

  /// Steps that were replayed so far.
  std::int64_t replays() const { return replays_; }

 private:
  struct Graph;
  /// A batch and what varies from step to step, in the step's own memory.
  struct Staged {
    Tensor slots;
    DeviceBatch batch;
  };

  Staged stage(const Chain& chain, const float* images, const std::int32_t* labels,
               std::int64_t size) const;
  bool fits(const Staged& staged, const StepOptions& options) const;
  void capture(const Chain& chain, Staged& staged, const StepOptions& options);
  std::vector<StepResult> replay(const Chain& chain, Staged& staged, const StepOptions& options);

  ContextPtr context_;
  Shape sample_shape_;
  std::shared_ptr<const Graph> graph_;
  std::int64_t last_size_ = 0;
  std::int64_t replays_ = 0;
};

}  // namespace nf::nn
