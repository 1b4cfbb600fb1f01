// One comparison from beginning to end: data, plans, training by each method, a run folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "neuroflux/local_trainer.h"
#include "neuroflux/plan.h"
#include "neuroflux/summary.h"
#include "nn/data/training_data.h"

namespace nf {

struct ExperimentOptions {
  // Net
  std::string model = "vgg11";
  double width = 1.0;
  double dropout = 0.0;
  // Data: a folder of IDX files, or "generated"
  std::string data;
  nn::TrainingDataOptions data_options;
  nn::GeneratedOptions generated;  ///< training set; the test set is a fifth of it
  // Method
  std::vector<std::string> methods{"bp", "neuroflux"};
  std::int64_t budget = 0;  ///< bytes; 0: what the device has
  std::int64_t batch = 64;
  double rho = 0.4;
  std::string auxiliary = "adaptive";
  /// Its cache folder, when empty, is one in the run folder; else each run makes its own within.
  LocalTrainingOptions training;
  // Device
  ContextOptions device;
  // Output
  std::filesystem::path run_folder;
  std::string config_text;      ///< written to config.toml
  std::filesystem::path trace;  ///< memory events of each method's first steps; empty: none
};

/// Throws Error naming the option, its rule and its value (with the nearest name where one is
/// unknown).
void check_experiment(const ExperimentOptions& options);

nn::TrainingData load_data(const ExperimentOptions& options);
/// The test images that belong to a generated training set: the same classes, other samples.
nn::GeneratedOptions generated_test_set(const nn::GeneratedOptions& train);

/// The methods that can be named in ExperimentOptions::methods.
const std::vector<std::string>& method_names();

/// What a plan needs to know of the data; from a data set, or given by hand.
struct DataShape {
  Shape sample{32, 32, 3};  ///< (H, W, C)
  std::int64_t classes = 10;
  std::int64_t train_count = 45000, validation_count = 5000, test_count = 10000;
};
DataShape data_shape(const nn::TrainingData& data);

/// All plans, without running anything on the device.
struct ExperimentPlan {
  Summary summary;
  std::unique_ptr<nn::Model> model;
  std::shared_ptr<const AuxiliaryRule> rule;
  Plan plan;  ///< of neuroflux
  BpPlan bp;
  double bp_seconds = 0.0, neuroflux_seconds = 0.0;  ///< that planning took
};
ExperimentPlan plan_experiment(const ExperimentOptions& options, const DataShape& data);
/// summary's fields, and units: [{name, output, parameters, auxiliary_width, feasible_batch, …}].
nlohmann::json to_json(const ExperimentPlan& plan);
/// Units and blocks for people.
std::string to_table(const ExperimentPlan& plan);

/// Memory events of one step of each block, and of BP's, on the meta device.
void trace_plan(const ExperimentPlan& plan, const ExperimentOptions& options, MemoryTrace& trace);

/// Trains by every method of the plan that fits. Writes config.toml, plan.json, metrics.jsonl,
/// summary.json and the weights (bp.safetensors, neuroflux.safetensors) into the run folder, each
/// complete or not at all. A method that fails ends the run; the summary says so and keeps what
/// others came to. Throws Error; methods that don't fit are no error.
Summary run_experiment(const ExperimentOptions& options, ExperimentPlan plan,
                       const nn::TrainingData& data, const TrainingObserver& observer);

/// A budget that nothing can be done in; the message names the least that would do.
class DoesNotFit : public Error {
 public:
  using Error::Error;
};

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
