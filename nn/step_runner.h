// Training steps of one trainer, batch after batch: one by one, or, on a context with graphs,
// captured once and replayed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "nn/train_step.h"

namespace nf::nn {

/// Trainables that take a batch one after the other, each the detached features of the one before.
using Chain = std::vector<Trainable>;

/// With graphs a step is replayed where the last step with its batch size began from the same
/// addresses, and so would be granted the same: it is captured for the first such step. All others
/// are made call by call: the first with a batch size, which also warms libraries up, and the first
/// after someone else's memory moved. Results, memory and peaks are the same either way, to the bit
/// and the byte. A replay does not ask the pool again for what it uses: its step would show in no
/// trace, so where a trace is kept steps are made call by call.
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
  /// All that decides which calls a step makes on which addresses, but for the chain and the size.
  struct Beginning {
    std::vector<std::pair<std::int64_t, std::int64_t>> layout;
    const void *slots = nullptr, *images = nullptr, *labels = nullptr;
    double label_smoothing = 0;
    bool operator==(const Beginning&) const = default;
  };
  /// The last step with one batch size.
  struct Known {
    Beginning beginning;
    std::unique_ptr<CapturedCalls> calls = nullptr;  ///< null: not captured
    std::int64_t peak_live = 0, peak_reserved = 0;
  };
  /// A batch and what varies from step to step, in the step's own memory.
  struct Staged {
    Tensor slots;
    DeviceBatch batch;
  };

  Staged stage(const Chain& chain, const float* images, const std::int32_t* labels,
               std::int64_t size) const;
  Beginning beginning(const Staged& staged, const StepOptions& options) const;
  void capture(const Chain& chain, Staged staged, const StepOptions& options, Known& known);
  std::vector<StepResult> replay(const Chain& chain, Staged& staged, const StepOptions& options,
                                 const Known& known);

  ContextPtr context_;
  Shape sample_shape_;
  std::map<std::int64_t, Known> known_;  // by batch size
  std::int64_t replays_ = 0;
};

}  // namespace nf::nn
