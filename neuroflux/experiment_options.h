// What an experiment is: net, data, methods, device, output.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/local_trainer.h"
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
  std::string partition = "optimal";
  MemoryModel memory_model = MemoryModel::exact;
  std::int64_t linear_points = 3;  ///< peaks through which the linear model lays its line
  /// Whether the planner measures times on the device before it plans, or predicts them.
  bool profile = false;
  std::filesystem::path plan_file;  ///< of neuroflux, to be run as given; empty: plan
  std::string auxiliary = "pooled";
  /// How many of the net's units learn from one loss in neuroflux: see nn::joined_unit_sizes.
  std::string units = "3";
  /// neuroflux delivers the exit of the fewest parameters whose validation accuracy is at most this
  /// many points (hundredths) below that of bp, which must be among the methods and before it;
  /// where none is, as without. What is trained does not hang on it.
  std::optional<double> exit_within_bp = std::nullopt;
  /// Augmented copies of the training set that are cached, as many as there are epochs at most; 1:
  /// none.
  std::int64_t cache_views = 1;
  /// Its cache folder, when empty, is one in the run folder; else each run makes its own within.
  LocalTrainingOptions training;
  // Device
  ContextOptions device;
  // Output
  std::filesystem::path run_folder;
  std::string config_text;      ///< written to config.toml
  std::filesystem::path trace;  ///< memory events of each method's first steps; empty: none
  /// Leave a checkpoint after every epoch, to go on from; it goes when the run is finished.
  bool checkpoints = true;
  /// Go on with the run that the folder holds, from its checkpoint; from the beginning without one.
  bool resume = false;
};

/// Throws Error naming the option, its rule and its value (with the nearest name where one is
/// unknown).
void check_experiment(const ExperimentOptions& options);

/// What a plan needs to know of the data; from a data set, or given by hand.
struct DataShape {
  Shape sample{32, 32, 3};  ///< (H, W, C)
  std::int64_t classes = 10;
  std::int64_t train_count = 45000, validation_count = 5000, test_count = 10000;
  /// How images are stored; none: as large as the samples, with statistics for each channel.
  std::optional<nn::PixelFormat> stored = std::nullopt;
};

DataShape data_shape(const nn::TrainingData& data);

}  // namespace nf
