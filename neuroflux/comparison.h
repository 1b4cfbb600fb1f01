// The same comparison over several budgets and seeds, and what comes out of it taken together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/experiment.h"
#include "neuroflux/run_lock.h"

namespace nf {

struct ComparisonOptions {
  ExperimentOptions experiment;       ///< its run folder gets all; budget and seed are those below
  std::vector<std::int64_t> budgets;  ///< bytes, at least one
  std::vector<std::uint64_t> seeds;   ///< at least one
  /// The configuration of one of them, for its config.toml; empty: the experiment's own text.
  std::function<std::string(std::int64_t budget, std::uint64_t seed)> config_text = {};
  /// Of the run folder, where the caller holds it already; empty: run_comparison takes it.
  std::shared_ptr<const RunLock> lock = {};
};

/// The times that a comparison's plans rest on, as run_comparison left them in its folder; none
/// where it did not come so far. Throws DataError.
void load_times(const std::filesystem::path& folder, TimeModel& times);

/// Whether a run folder holds a run that was finished: its summary tells of no method that was not,
/// but for those that diverged, which they would again.
bool is_finished(const std::filesystem::path& run_folder);

/// Times for all its plans: measured, where they are, within the largest of the budgets.
std::unique_ptr<TimeModel> make_time_model(const ComparisonOptions& options);

/// One experiment of a comparison.
struct ComparisonRun {
  std::filesystem::path folder;  ///< within the comparison's
  Summary summary;
};

/// Called as each experiment begins: which of how many, from 1.
using OnRun = std::function<void(std::int64_t run, std::int64_t runs, std::int64_t budget,
                                 std::uint64_t seed)>;

/// Runs every budget with every seed, each in a folder BUDGET-seedN of its own (in the run folder
/// itself where there is only one), and writes summary.json, summary.csv and summary.md of what is
/// done after each. Folders are locked meanwhile (run_lock.h). All plans rest on `times`, which are
/// left in times.json. With the experiment's `resume` finished runs are kept as they are, the
/// others go on. Throws what run_experiment throws; budgets that nothing fits are no error, nor are
/// methods that diverge.
std::vector<ComparisonRun> run_comparison(const ComparisonOptions& options, TimeModel& times,
                                          const TrainingObserver& observer,
                                          const OnRun& on_run = {});

/// Mean and sample standard deviation over seeds.
struct Spread {
  double mean = 0.0;
  double deviation = 0.0;  ///< 0 for a single value
  std::int64_t count = 0;
};
std::optional<Spread> spread_of(const std::vector<double>& values);

/// A method under a budget, over all seeds at which it was finished.
struct MethodSpread {
  std::string method;
  std::int64_t budget_bytes = 0;
  std::int64_t seeds = 0, fits = 0, diverged = 0;
  std::int64_t minimum_budget_bytes = 0, full_parameters = 0;
  std::optional<std::int64_t> predicted_peak_bytes, measured_peak_bytes;  ///< largest
  std::optional<Spread> total_seconds, train_seconds, seconds_to_bp_accuracy;
  /// BP's seconds to its own final validation accuracy over this method's, seed by seed.
  std::optional<Spread> sooner_than_bp;
  std::optional<Spread> validation_accuracy, test_accuracy;  ///< fractions
  std::optional<Spread> parameters, flops, images_per_second, cache_bytes, energy_joules;
};
std::vector<MethodSpread> summarise(const std::vector<ComparisonRun>& runs);

/// {"runs": [summary and folder of each], "methods": [MethodSpread…]}.
nlohmann::json to_json(const std::vector<ComparisonRun>& runs);
/// A row for each method of each run, every figure of the summary as it is.
std::string to_csv(const std::vector<ComparisonRun>& runs);
/// A row for each method and budget, mean ± deviation over seeds.
std::string to_markdown(const std::vector<ComparisonRun>& runs);

}  // namespace nf
