// What a training that was cut off needs to go on after its last epoch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "neuroflux/exits.h"
#include "neuroflux/plan.h"
#include "nn/fit.h"
#include "nn/state_dict.h"

namespace nf {

struct BlockResult {
  BlockPlan plan;
  std::int64_t measured_peak_bytes = 0;
  double train_seconds = 0.0;         ///< steps, waiting for input included
  double cache_seconds = 0.0;         ///< filling the cache with the block's outputs
  double cache_wait_seconds = 0.0;    ///< of train_seconds: waiting for the cache
  double fill_wait_seconds = 0.0;     ///< of cache_seconds: waiting for the old and the new cache
  std::int64_t cache_host_bytes = 0;  ///< most host memory that caches and their buffers took
  double evaluation_seconds = 0.0;
  double evaluation_wait_seconds = 0.0;  ///< of these: waiting for the cache
};

/// The end of an epoch of a block (of the net, for methods without blocks), or of a block.
struct TrainingState {
  // Blocks that are finished; whole-net methods have none.
  std::vector<BlockResult> blocks;
  std::vector<ExitResult> exits;
  nn::StateDict trained;  ///< units and classifiers of these
  // What is being trained; all empty where the next block has not begun.
  std::vector<nn::EpochMetrics> epochs;
  nn::StateDict weights, optimizer;
  BlockResult partial;  ///< peaks and waits so far; times are those of `epochs`
};

/// Where a training begins, and whom it tells how it could go on.
struct Continuation {
  const TrainingState* from = nullptr;  ///< null: from the beginning
  /// After every epoch and once a block's outputs are cached. The state is valid during the call.
  std::function<void(const TrainingState&)> save = {};
};

}  // namespace nf
