#include "neuroflux/comparison.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/text.h"
#include "neuroflux/checkpoint.h"
#include "neuroflux/run_lock.h"
#include "neuroflux/run_record.h"

namespace nf {
namespace {

using nlohmann::json;

// One figure of a method, under its name in CSV files.
struct Column {
  const char* name;
  std::function<std::optional<double>(const MethodSummary&)> value;
};

template <typename T>
std::optional<double> number(const std::optional<T>& value) {
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

const std::vector<Column>& columns() {
  using Method = const MethodSummary&;
  static const std::vector<Column> all{
      {"minimum_budget_bytes",
       [](Method m) { return std::optional<double>(m.minimum_budget_bytes); }},
      {"predicted_peak_bytes", [](Method m) { return number(m.predicted_peak_bytes); }},
      {"measured_peak_bytes", [](Method m) { return number(m.measured_peak_bytes); }},
      {"predicted_seconds", [](Method m) { return m.predicted_seconds; }},
      {"plan_seconds", [](Method m) { return m.plan_seconds; }},
      {"train_seconds", [](Method m) { return m.train_seconds; }},
      {"evaluation_seconds", [](Method m) { return m.evaluation_seconds; }},
      {"total_seconds", [](Method m) { return m.total_seconds; }},
      {"seconds_to_bp_accuracy", [](Method m) { return m.seconds_to_bp_accuracy; }},
      {"validation_accuracy", [](Method m) { return m.validation_accuracy; }},
      {"test_accuracy", [](Method m) { return m.test_accuracy; }},
      {"parameters", [](Method m) { return number(m.parameters); }},
      {"full_parameters", [](Method m) { return std::optional<double>(m.full_parameters); }},
      {"flops", [](Method m) { return number(m.flops); }},
      {"inference_images_per_second", [](Method m) { return m.inference_images_per_second; }},
      {"inference_batch", [](Method m) { return number(m.inference_batch); }},
      {"cache_bytes", [](Method m) { return number(m.cache_bytes); }},
      {"energy_joules", [](Method m) { return m.energy_joules; }}};
  return all;
}

const MethodSummary* method_of(const Summary& summary, const std::string& name) {
  for (const MethodSummary& method : summary.methods)
    if (method.name == name) return &method;
  return nullptr;
}

json or_null(const std::optional<Spread>& spread) {
  if (!spread) return nullptr;
  return {{"mean", spread->mean}, {"deviation", spread->deviation}, {"count", spread->count}};
}

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json spread_json(const MethodSpread& method) {
  return {{"method", method.method},
          {"budget_bytes", method.budget_bytes},
          {"seeds", method.seeds},
          {"fits", method.fits},
          {"diverged", method.diverged},
          {"minimum_budget_bytes", method.minimum_budget_bytes},
          {"predicted_peak_bytes", or_null(method.predicted_peak_bytes)},
          {"measured_peak_bytes", or_null(method.measured_peak_bytes)},
          {"total_seconds", or_null(method.total_seconds)},
          {"train_seconds", or_null(method.train_seconds)},
          {"seconds_to_bp_accuracy", or_null(method.seconds_to_bp_accuracy)},
          {"sooner_than_bp", or_null(method.sooner_than_bp)},
          {"validation_accuracy", or_null(method.validation_accuracy)},
          {"test_accuracy", or_null(method.test_accuracy)},
          {"full_parameters", method.full_parameters},
          {"parameters", or_null(method.parameters)},
          {"flops", or_null(method.flops)},
          {"inference_images_per_second", or_null(method.images_per_second)},
          {"cache_bytes", or_null(method.cache_bytes)},
          {"energy_joules", or_null(method.energy_joules)}};
}

// "12.3 ± 0.4"; without the deviation of a single value.
std::string text(const std::optional<Spread>& spread, int digits, double factor = 1.0) {
  if (!spread) return "-";
  std::string shown = fmt::format("{:.{}f}", spread->mean * factor, digits);
  if (spread->count > 1) shown += fmt::format(" ± {:.{}f}", spread->deviation * factor, digits);
  return shown;
}

MethodSpread spread_over(const std::string& name, std::int64_t budget,
                         const std::vector<const Summary*>& summaries) {
  MethodSpread result;
  result.method = name;
  result.budget_bytes = budget;
  std::vector<const MethodSummary*> methods;
  std::vector<double> sooner;
  for (const Summary* summary : summaries) {
    const MethodSummary* method = method_of(*summary, name);
    if (method == nullptr) continue;
    ++result.seeds;
    result.fits += method->fits ? 1 : 0;
    result.diverged += method->diverged ? 1 : 0;
    result.minimum_budget_bytes = method->minimum_budget_bytes;
    result.full_parameters = method->full_parameters;
    const auto largest = [](std::optional<std::int64_t>& most,
                            const std::optional<std::int64_t>& value) {
      if (value) most = std::max(most.value_or(0), *value);
    };
    largest(result.predicted_peak_bytes, method->predicted_peak_bytes);
    largest(result.measured_peak_bytes, method->measured_peak_bytes);
    if (!method->error.empty()) continue;
    methods.push_back(method);
    const MethodSummary* bp = method_of(*summary, "bp");
    if (bp != nullptr && bp->seconds_to_bp_accuracy && method->seconds_to_bp_accuracy)
      sooner.push_back(*bp->seconds_to_bp_accuracy / *method->seconds_to_bp_accuracy);
  }
  const auto over = [&](auto field) {
    std::vector<double> values;
    for (const MethodSummary* method : methods)
      if (const auto value = number((*method).*field)) values.push_back(*value);
    return spread_of(values);
  };
  result.total_seconds = over(&MethodSummary::total_seconds);
  result.train_seconds = over(&MethodSummary::train_seconds);
  result.seconds_to_bp_accuracy = over(&MethodSummary::seconds_to_bp_accuracy);
  result.sooner_than_bp = spread_of(sooner);
  result.validation_accuracy = over(&MethodSummary::validation_accuracy);
  result.test_accuracy = over(&MethodSummary::test_accuracy);
  result.parameters = over(&MethodSummary::parameters);
  result.flops = over(&MethodSummary::flops);
  result.images_per_second = over(&MethodSummary::inference_images_per_second);
  result.cache_bytes = over(&MethodSummary::cache_bytes);
  result.energy_joules = over(&MethodSummary::energy_joules);
  return result;
}

void write_all(const std::filesystem::path& folder, const std::vector<ComparisonRun>& runs) {
  replace_file(folder / "summary.csv", to_csv(runs));
  replace_file(folder / "summary.md", to_markdown(runs));
  // A single run has written its own, with the same name and in the same place.
  if (runs.front().folder != folder)
    replace_file(folder / "summary.json", to_json(runs).dump(2) + '\n');
}

constexpr const char* kTimes = "times.json";

// What the device has may be another number of bytes next time.
std::int64_t budget_of(const std::filesystem::path& run_folder, std::int64_t wanted) {
  const std::filesystem::path plan = run_folder / "plan.json";
  if (wanted > 0 || !std::filesystem::exists(plan)) return wanted;
  return JsonValue::read(plan).at("budget_bytes").whole(1);
}

std::string folder_name(std::int64_t budget, std::uint64_t seed) {
  return fmt::format("{}-seed{}", budget == 0 ? "all" : std::to_string(budget), seed);
}

}  // namespace

void load_times(const std::filesystem::path& folder, TimeModel& times) {
  if (std::filesystem::exists(folder / kTimes)) times.load(folder / kTimes);
}

bool is_finished(const std::filesystem::path& run_folder) {
  if (!std::filesystem::exists(run_folder / "summary.json") ||
      std::filesystem::exists(checkpoint_file(run_folder)))
    return false;
  const Summary summary = read_runs(run_folder).front().summary;
  return std::ranges::all_of(summary.methods, [](const MethodSummary& method) {
    return method.error.empty() || method.diverged;
  });
}

std::unique_ptr<TimeModel> make_time_model(const ComparisonOptions& options) {
  ExperimentOptions widest = options.experiment;
  const bool all = std::ranges::count(options.budgets, 0) > 0;  // of the device
  widest.budget = all || options.budgets.empty() ? 0 : std::ranges::max(options.budgets);
  return make_time_model(widest);
}

std::vector<ComparisonRun> run_comparison(const ComparisonOptions& options, TimeModel& times,
                                          const TrainingObserver& observer, const OnRun& on_run) {
  NF_CHECK(!options.budgets.empty() && !options.seeds.empty(),
           "comparison: {} budgets and {} seeds; there must be one at least of each",
           options.budgets.size(), options.seeds.size());
  const std::filesystem::path& folder = options.experiment.run_folder;
  const auto runs = static_cast<std::int64_t>(options.budgets.size() * options.seeds.size());
  const auto lock = options.lock ? options.lock : std::make_shared<const RunLock>(folder);
  if (options.experiment.resume) load_times(folder, times);
  std::vector<ComparisonRun> done;
  for (const std::int64_t budget : options.budgets)
    for (const std::uint64_t seed : options.seeds) {
      ExperimentOptions one = options.experiment;
      one.budget = budget;
      one.training.seed = one.data_options.seed = seed;
      if (runs > 1) one.run_folder = folder / folder_name(budget, seed);
      if (one.resume && is_finished(one.run_folder)) {
        done.push_back({one.run_folder, read_runs(one.run_folder).front().summary});
        write_all(folder, done);  // which may be what was cut off
        continue;
      }
      if (one.resume) one.budget = budget_of(one.run_folder, budget);
      if (options.config_text) one.config_text = options.config_text(budget, seed);
      if (on_run) on_run(static_cast<std::int64_t>(done.size()) + 1, runs, budget, seed);
      const nn::TrainingData data = load_data(one);
      ExperimentPlan plan = plan_experiment(one, data_shape(data), times);
      times.save(folder / kTimes);
      std::optional<RunLock> own;
      if (runs > 1) own.emplace(one.run_folder);
      done.push_back({one.run_folder, run_experiment(one, std::move(plan), data, observer)});
      write_all(folder, done);
    }
  return done;
}

std::optional<Spread> spread_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  Spread spread{0.0, 0.0, static_cast<std::int64_t>(values.size())};
  for (const double value : values) spread.mean += value / static_cast<double>(values.size());
  for (const double value : values)
    spread.deviation += (value - spread.mean) * (value - spread.mean);
  if (values.size() > 1)
    spread.deviation = std::sqrt(spread.deviation / static_cast<double>(values.size() - 1));
  return spread;
}

std::vector<MethodSpread> summarise(const std::vector<ComparisonRun>& runs) {
  std::vector<std::int64_t> budgets;
  std::vector<std::string> names;
  for (const ComparisonRun& run : runs) {
    if (std::ranges::count(budgets, run.summary.budget_bytes) == 0)
      budgets.push_back(run.summary.budget_bytes);
    for (const MethodSummary& method : run.summary.methods)
      if (std::ranges::count(names, method.name) == 0) names.push_back(method.name);
  }
  std::vector<MethodSpread> methods;
  for (const std::int64_t budget : budgets) {
    std::vector<const Summary*> summaries;
    for (const ComparisonRun& run : runs)
      if (run.summary.budget_bytes == budget) summaries.push_back(&run.summary);
    for (const std::string& name : names) methods.push_back(spread_over(name, budget, summaries));
  }
  return methods;
}

json to_json(const std::vector<ComparisonRun>& runs) {
  json result{{"runs", json::array()}, {"methods", json::array()}};
  for (const ComparisonRun& run : runs) {
    json summary = to_json(run.summary);
    summary["folder"] = run.folder.filename().string();
    result["runs"].push_back(std::move(summary));
  }
  for (const MethodSpread& method : summarise(runs))
    result["methods"].push_back(spread_json(method));
  return result;
}

std::string to_csv(const std::vector<ComparisonRun>& runs) {
  std::string csv = "model,device,threads,budget_bytes,seed,method,status,batches,exit_unit";
  for (const Column& column : columns()) csv += fmt::format(",{}", column.name);
  csv += '\n';
  for (const ComparisonRun& run : runs)
    for (const MethodSummary& method : run.summary.methods) {
      csv += fmt::format("{},{},{},{},{},{},{},\"{}\",{}", run.summary.model, run.summary.device,
                         run.summary.threads, run.summary.budget_bytes, run.summary.seed,
                         method.name, status_of(method), batches_text(method.batches),
                         method.exit_unit ? std::to_string(*method.exit_unit) : "");
      for (const Column& column : columns()) {
        const std::optional<double> value = column.value(method);
        csv += value ? fmt::format(",{}", *value) : ",";
      }
      csv += '\n';
    }
  return csv;
}

std::string to_markdown(const std::vector<ComparisonRun>& runs) {
  std::string table =
      "| budget | method | seeds | predicted peak | measured peak | train s | total s | s to bp's "
      "accuracy | sooner than bp | val acc % | test acc % | parameters | fewer | MFLOP | images/s "
      "| cache | energy J "
      "|\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const MethodSpread& method : summarise(runs)) {
    if (method.fits == 0) {
      table += fmt::format("| {} | {} | {} | does not fit, needs {} |{}\n",
                           format_bytes(method.budget_bytes), method.method, method.seeds,
                           format_bytes_up(method.minimum_budget_bytes), " |||||||||||||");
      continue;
    }
    const auto bytes = [](const std::optional<std::int64_t>& value) {
      return value ? format_bytes(*value) : std::string("-");
    };
    const std::string seeds = method.diverged == 0
                                  ? std::to_string(method.seeds)
                                  : fmt::format("{}, {} diverged", method.seeds, method.diverged);
    table += fmt::format(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        format_bytes(method.budget_bytes), method.method, seeds, bytes(method.predicted_peak_bytes),
        bytes(method.measured_peak_bytes), text(method.train_seconds, 1),
        text(method.total_seconds, 1), text(method.seconds_to_bp_accuracy, 1),
        text(method.sooner_than_bp, 2), text(method.validation_accuracy, 2, 100.0),
        text(method.test_accuracy, 2, 100.0), text(method.parameters, 0),
        method.parameters ? fmt::format("{:.1f}x", static_cast<double>(method.full_parameters) /
                                                       method.parameters->mean)
                          : "-",
        text(method.flops, 1, 1e-6), text(method.images_per_second, 0),
        method.cache_bytes ? format_bytes(std::llround(method.cache_bytes->mean)) : "-",
        text(method.energy_joules, 0));
  }
  return table;
}

}  // namespace nf
