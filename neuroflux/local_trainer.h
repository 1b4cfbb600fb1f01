// Trains a planned net block by block: only the present block is on the device, its input comes
// from the data set or from the activation cache that the block before it left on storage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/memory/trace.h"
#include "neuroflux/disk_chunks.h"
#include "neuroflux/local_net.h"
#include "neuroflux/training_state.h"
#include "nn/data/training_data.h"
#include "nn/fit.h"
#include "nn/state_dict.h"

namespace nf {

/// What every method's training has in common.
struct TrainingOptions {
  std::int64_t epochs = 6;  ///< per block, or of the whole net
  /// The learning rate is the one at `reference_batch`; it scales linearly with the batch in use.
  nn::OptimizerOptions optimizer;
  std::int64_t reference_batch = 64;
  nn::ScheduleKind schedule = nn::ScheduleKind::cosine;
  double warmup_epochs = 0.5;
  double step_epochs = 0.0;  ///< schedule `step`: epochs between two cuts; 0: a third of all
  double gamma = 0.1;        ///< schedule `step`: factor of each cut
  double label_smoothing = 0.0;
  std::uint64_t seed = 0;
};

/// Optimizer options and schedule for a batch: linear scaling, and warm-up as a share of the steps.
nn::OptimizerOptions scaled_optimizer(const TrainingOptions& options, std::int64_t batch);
nn::FitOptions fit_options(const TrainingOptions& options, std::int64_t batch,
                           std::int64_t train_count);

struct LocalTrainingOptions : TrainingOptions {
  std::filesystem::path cache_folder;  ///< no two runs at a time may have the same
  DType cache_dtype = DType::bf16;
  CachePlace cache_place = CachePlace::disk;
  /// Of host memory for caches kept there and for the buffers of all; 0: as much as they ask for.
  std::int64_t cache_host_bytes = 0;
  CacheStorage cache_storage = {};  ///< how files are read and written
  bool stop_when_saturated = true;
  std::int64_t patience = 2;      ///< exits that may fail to improve
  double improvement = 0.005;     ///< that counts, as a fraction
  double exit_tolerance = 0.005;  ///< below the best exit, as a fraction
  /// That the delivered exit is to have; where training may stop, it does behind the first block
  /// with such an exit. 0: see choose_exit.
  double exit_accuracy = 0.0;
  /// The delivered exit is the one of the fewest parameters with this accuracy, where there is one,
  /// whatever else decides; training goes on as it would without. 0: no such wish.
  double delivered_accuracy = 0.0;
  bool deliver_whole_net = false;    ///< instead of the exit with the fewest parameters
  std::string method = "neuroflux";  ///< its name in stages
};

/// Which part of a method's work is going on.
struct Stage {
  std::string method;
  std::int64_t block = 0;  ///< from 1; 0: the method has no blocks
  std::int64_t blocks = 0;
};
/// "neuroflux block 2/3" or "bp".
std::string describe(const Stage& stage);

/// Called on the training thread. Any may be empty.
struct TrainingObserver {
  std::function<void(const Stage&, const nn::StepProgress&)> on_step = {};
  /// What it throws ends the run without a checkpoint of that epoch; on_step and on_batch do not.
  std::function<void(const Stage&, const nn::EpochMetrics&)> on_epoch = {};
  std::function<void(const std::string&)> on_message = {};
  /// After every batch that is only evaluated or written to the cache; may throw to end the run.
  std::function<void(const Stage&)> on_batch = {};
  /// As work begins that no step or epoch tells of: "filling cache", "testing".
  std::function<void(const Stage&, const char*)> on_phase = {};
  /// Records memory from when a block (or the net) is put on the device to the end of its first
  /// step.
  MemoryTrace* trace = nullptr;
};

/// What nn::fit tells of one stage, passed on to an observer; `trace` ends with the first step.
nn::FitObserver fit_observer(const TrainingObserver& observer, const Stage& stage,
                             TraceScope& trace);

struct LocalResult {
  std::vector<BlockResult> blocks;  ///< those that were trained
  std::vector<ExitResult> exits;
  std::size_t chosen = 0;  ///< index into exits
  bool stopped_early = false;
  double test_accuracy = 0.0;  ///< of the chosen exit, fraction
  double train_seconds = 0.0;  ///< steps and cache
  double evaluation_seconds = 0.0;
  std::int64_t predicted_peak_bytes = 0;  ///< of the blocks that were trained
  std::int64_t measured_peak_bytes = 0;   ///< of the whole run
  nn::StateDict weights;                  ///< all trained units and their classifiers
};

/// Runs the plan on the device of `context`, whose pool must be empty. Caches that an earlier run
/// left in the folder are replaced; its own are removed at the end, and the folder if it made it.
/// A training that goes on from a state uses the caches that it left and makes anew what is missing
/// or is another training's; from there on all has the bits of one that was never cut off.
/// Throws OutOfBudget, Diverged naming block, epoch, step and unit for a loss that is not finite,
/// and Error for storage without space or permission, before anything is trained.
LocalResult train_locally(const ContextPtr& context, const LocalNet& net, const Plan& plan,
                          const nn::TrainingData& data, const LocalTrainingOptions& options,
                          const TrainingObserver& observer = {},
                          const Continuation& continuation = {});

/// The weights of one exit: units 0..unit and its classifier.
nn::StateDict exit_weights(const LocalNet& net, const nn::StateDict& weights, std::int64_t unit);

}  // namespace nf
