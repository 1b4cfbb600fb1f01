// Training steps of one trainer, batch after batch: one by one, or, on a context with graphs,
// captured once and replayed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "nn/stage_batch.h"
#include "nn/train_step.h"

namespace nf::nn {

/// Trainables that take a batch one after the other, each the detached features of the one before.
using Chain = std::span<const Trainable>;

/// With graphs a step is replayed where the last step with its batch size began from the same
/// addresses, and so would be granted the same: it is captured for the first such step. All others
/// are made call by call: the first with a batch size, which also warms libraries up, and the first
/// after someone else's memory moved. Results, memory and peaks are the same either way, to the bit
/// and the byte. A replay does not ask the pool again for what it uses: its step would show in no
/// trace, so where a trace is kept steps are made call by call.
class StepRunner {
 public:
  explicit StepRunner(ContextPtr context) : context_(std::move(context)) {}

  /// Stages the batch, in whichever form it is, and trains each of `chain` on it; what makes values
  /// of pixels is no part of what is captured. The chain and the shape of samples must be the same
  /// in each call until forget(). Throws as stage_batch and train_step do; in a replay those behind
  /// the one that failed have trained.
  StepResults train(Chain chain, const HostBatch& batch, const StepOptions& options);

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

  Staged stage(Chain chain, const HostBatch& batch) const;
  Beginning beginning(const Staged& staged, const StepOptions& options) const;
  void capture(Chain chain, Staged staged, const StepOptions& options, Known& known);
  StepResults replay(Chain chain, Staged& staged, const StepOptions& options, const Known& known);

  ContextPtr context_;
  std::map<std::int64_t, Known> known_;  // by batch size
  std::int64_t replays_ = 0;
};

}  // namespace nf::nn
