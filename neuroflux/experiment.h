// One comparison from beginning to end: data, plans, training by each method, a run folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "neuroflux/experiment_options.h"
#include "neuroflux/method.h"
#include "neuroflux/summary.h"

namespace nf {

nn::TrainingData load_data(const ExperimentOptions& options);
/// The test images that belong to a generated training set: the same classes, other samples.
nn::GeneratedOptions generated_test_set(const nn::GeneratedOptions& train);

/// All plans, without running anything on the device.
struct ExperimentPlan {
  Summary summary;
  std::unique_ptr<nn::Model> model;
  std::vector<std::unique_ptr<Method>> methods;  ///< as in summary.methods
  CachePlace cache_place = CachePlace::disk;
  DType cache_dtype = DType::bf16;
};
ExperimentPlan plan_experiment(const ExperimentOptions& options, const DataShape& data);
/// The same by times that several plans share.
ExperimentPlan plan_experiment(const ExperimentOptions& options, const DataShape& data,
                               TimeModel& times);
/// Measured or predicted, as the options say, and remembered. A measurement may take as much memory
/// as the step it measures, which never is more than the budget of the plan that asks.
std::unique_ptr<TimeModel> make_time_model(const ExperimentOptions& options);
/// summary's fields; methods that train by parts have units with it: [{name, output, parameters,
/// auxiliary_width, feasible_batch, …}], and where they cache, the order in which caches are read
/// (with the seed it is known to the last sample): cache_order {kind, window_chunks}, and of blocks
/// cache_chunk_samples.
nlohmann::json to_json(const ExperimentPlan& plan);
/// Units and blocks for people.
std::string to_table(const ExperimentPlan& plan);
/// Why each unit has its classifier and its block, one line a unit.
std::string explanation(const ExperimentPlan& plan);

/// Memory events of one step of each method that fits (of each of its blocks), on the meta device.
void trace_plan(const ExperimentPlan& plan, const ExperimentOptions& options, MemoryTrace& trace);

/// Trains by every method of the plan that fits. Writes config.toml, plan.json, metrics.jsonl,
/// summary.json and the weights (bp.safetensors, neuroflux.safetensors, and all exits in
/// neuroflux-exits.safetensors) into the run folder, each complete or not at all. A method that
/// diverges is told as such in the summary, which is no error, and the others go on; one that fails
/// otherwise ends the run, and the summary keeps what others came to. No other run may be going on
/// in the folder: the caller holds a RunLock. With checkpoints, checkpoint.safetensors stands for
/// the last finished epoch until the run is finished; a run that goes on from it ends with the same
/// weights and metrics as one that was never cut off. Throws Error; methods that don't fit are no
/// error.
Summary run_experiment(const ExperimentOptions& options, ExperimentPlan plan,
                       const nn::TrainingData& data, const TrainingObserver& observer);

/// A saved network on a data set.
struct Evaluation {
  std::string model;
  std::int64_t exit_unit = 0;  ///< counted from 1; 0: the whole net
  std::int64_t parameters = 0;
  std::int64_t images = 0;
  double accuracy = 0.0;
  double images_per_second = 0.0;
  std::int64_t batch = 0;
  std::int64_t peak_bytes = 0;
};
/// Reads what run_experiment wrote and evaluates it on a folder's test set, normalised as in
/// training. Throws DataError for a damaged file, DoesNotFit.
Evaluation evaluate_saved(const std::filesystem::path& weights, const ExperimentOptions& options);

}  // namespace nf
