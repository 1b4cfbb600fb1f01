// What a plan or a run comes to, as JSON for machines and as a table for people.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/shape.h"
#include "nn/data/batch.h"
#include "nn/optimizer.h"

namespace nf {

struct BlockSummary {
  std::int64_t first_unit = 0;  ///< counted from 1, inclusive
  std::int64_t last_unit = 0;   ///< inclusive
  std::int64_t batch = 0;
  std::int64_t predicted_peak_bytes = 0;
  std::optional<std::int64_t> measured_peak_bytes;
  std::int64_t cache_bytes = 0;             ///< of its outputs: planned, in a finished run written
  std::optional<double> predicted_seconds;  ///< of train and cache
  /// Filling the cache is counted in cache_seconds; waiting for storage while training in
  /// cache_wait_seconds, while filling in fill_wait_seconds, in validation in
  /// evaluation_wait_seconds.
  std::optional<double> train_seconds, cache_seconds, cache_wait_seconds, fill_wait_seconds,
      evaluation_seconds, evaluation_wait_seconds;
  std::optional<std::int64_t> cache_host_bytes;  ///< most that caches took of host memory
};

struct ExitSummary {
  std::int64_t unit = 0;  ///< counted from 1
  std::int64_t parameters = 0;
  std::int64_t flops = 0;
  double validation_accuracy = 0.0;
  /// Measured as the method's own figure, in less time where the exit is not the delivered one;
  /// empty where not one image fits, or on an emulator.
  std::optional<double> inference_images_per_second;
};

/// Where a method stood at the end of an epoch.
struct AccuracyPoint {
  double elapsed_seconds = 0.0;      ///< since the method began to plan; all of its work
  double train_seconds = 0.0;        ///< of these, training steps
  double validation_accuracy = 0.0;  ///< of the best exit of that epoch
};

/// What is not known (a plan has no times, a method that does not fit has no accuracy) is empty,
/// null in JSON, a dash in a table. Accuracies are fractions.
struct MethodSummary {
  std::string name;
  bool fits = false;
  std::string error;      ///< why it was not finished; empty: it was, or is only planned
  bool diverged = false;  ///< the error is that numbers were no longer finite
  /// When its steps update.
  nn::UpdateMoment update = nn::UpdateMoment::together;
  std::vector<std::int64_t> batches;
  std::optional<std::int64_t> micro_batch;  ///< bp-accumulate: on the device at a time
  std::vector<std::int64_t> segments;       ///< bp-checkpoint: first unit of each, counted from 1
  std::optional<std::int64_t> predicted_peak_bytes, measured_peak_bytes;
  std::optional<double> predicted_seconds;  ///< of train and evaluation, all blocks run
  /// Training steps and, for neuroflux, the cache; without planning and evaluation.
  std::optional<double> train_seconds;
  std::optional<double> evaluation_seconds, plan_seconds;
  /// All of its work, from planning to the test: with checkpoints and placing the net too.
  std::optional<double> total_seconds;
  std::optional<double> validation_accuracy, test_accuracy;
  std::optional<std::int64_t> parameters;  ///< of what is delivered: the net, or the chosen exit
  std::int64_t full_parameters = 0;
  std::optional<std::int64_t> flops;  ///< forward of what is delivered, one image
  std::optional<double> inference_images_per_second;
  std::optional<std::int64_t> inference_batch;
  std::int64_t minimum_budget_bytes = 0;
  std::vector<AccuracyPoint> history;
  /// Until an exit first had BP's final validation accuracy, planning, caching and evaluation
  /// included; for bp itself too. Empty where it never had, or BP was not run.
  std::optional<double> seconds_to_bp_accuracy;
  std::optional<double> energy_joules;  ///< of processors and GPU while it ran, if they tell
  std::string weights;                  ///< file of what is delivered, within the run folder
  // neuroflux only
  std::int64_t unit_count = 0;
  /// Most that lies on storage at once: planned, in a finished run written.
  std::optional<std::int64_t> cache_bytes;
  std::vector<BlockSummary> blocks;
  std::vector<ExitSummary> exits;
  std::optional<std::int64_t> exit_unit;  ///< the chosen one, counted from 1
  /// That the chosen one was to have, because of bp's; empty: no such wish.
  std::optional<double> wanted_exit_accuracy;
  std::optional<bool> stopped_early;
};

struct Summary {
  std::string model;
  Shape input;  ///< (H, W, C) of an image as the net gets it
  /// Of the stored pixels of which the device makes the net's input; none: the host gives it
  /// values.
  std::optional<nn::PixelFormat> format;
  std::int64_t classes = 0;
  std::string device;
  std::int64_t threads = 0;
  std::uint64_t seed = 0;
  std::int64_t budget_bytes = 0;
  /// What the device's context and libraries take beside the budget, where it tells.
  std::optional<std::int64_t> context_bytes;
  std::int64_t train_images = 0, validation_images = 0, test_images = 0;
  std::vector<MethodSummary> methods;
};

/// "ok", "does-not-fit", "diverged" or "failed".
const char* status_of(const MethodSummary& method);
nlohmann::json to_json(const MethodSummary& method);
nlohmann::json to_json(const Summary& summary);
/// Whether an accuracy was wanted of the delivered exit that none has.
bool lacks_wanted_exit(const MethodSummary& method);
/// Completes seconds_to_bp_accuracy of all methods from their histories.
void compare_with_bp(Summary& summary);
/// The same by a bp of another run, which is to have the same conditions, budget and seed.
void compare_with_bp(Summary& summary, const MethodSummary& bp);
/// method, status, batch or batches, predicted and measured peak, training seconds, validation and
/// test accuracy, parameters, inference images/s: one row per method, columns aligned.
std::string to_table(const Summary& summary);

/// "64,32,16", or a dash where there is none.
std::string batches_text(const std::vector<std::int64_t>& batches);
/// Columns aligned, the first to the left, the others to the right.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace nf
