#include "tools/commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/atomic_file.h"
#include "engine/text.h"
#include "nn/models/registry.h"
#include "tools/config_file.h"
#include "tools/errors.h"
#include "tools/interrupt.h"
#include "tools/progress.h"
#include "tools/report_command.h"
#include "tools/run_folder.h"

namespace nf::tools {
namespace {

void print(const std::string& text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  NF_CHECK(written, "stdout: writing failed");
}

std::string with_bytes(std::int64_t bytes) {
  return fmt::format("{} ({} bytes)", format_bytes(bytes), bytes);
}

/// For a POSIX shell.
std::string quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("/._-+=:,@%").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string(R"('\'')") : std::string(1, c);
  return text + "'";
}

// A net that can't be made for this data is a matter of options, found before anything is begun.
std::string checked_model_name(const ExperimentOptions& options, const DataShape& data) {
  try {
    return nn::make_model(options.model, {.input = data.sample,
                                          .classes = data.classes,
                                          .width = options.width,
                                          .dropout = options.dropout})
        ->name();
  } catch (const Error& error) {
    fail_usage("{}", error.what());
  }
}

bool any_fits(const Summary& summary) {
  return std::any_of(summary.methods.begin(), summary.methods.end(),
                     [](const MethodSummary& method) { return method.fits; });
}

DoesNotFit does_not_fit(const Summary& summary) {
  std::string least;
  for (const MethodSummary& method : summary.methods)
    least += fmt::format("{}{} needs at least {}", least.empty() ? "" : "; ", method.name,
                         with_bytes(method.minimum_budget_bytes));
  return DoesNotFit(
      fmt::format("a budget of {} is too small: {}", with_bytes(summary.budget_bytes), least));
}

// One row a budget and method; nothing but a budget that no method fits is an error.
void run_plans(const CommandLine& line, const DataShape& data) {
  std::vector<std::vector<std::string>> rows{{"budget", "method", "status", "batch",
                                              "predicted peak", "predicted s", "expected s",
                                              "cache", "least budget"}};
  nlohmann::json plans = nlohmann::json::array();
  bool fits = false;
  Summary last;
  for (const std::int64_t budget : line.budgets) {
    ExperimentOptions options = line.options;
    options.budget = budget;
    const ExperimentPlan plan = plan_experiment(options, data);
    fits = fits || any_fits(plan.summary);
    last = plan.summary;
    plans.push_back(to_json(plan));
    for (const auto& method : plan.methods) {
      const MethodSummary& planned = method->planned();
      const Plan* local = method->local_plan();
      const auto seconds = [&](double value) {
        return planned.fits ? fmt::format("{:.1f}", value) : "-";
      };
      rows.push_back({format_bytes(budget), planned.name, planned.fits ? "fits" : "does not fit",
                      batches_text(planned.batches),
                      planned.fits ? format_bytes(*planned.predicted_peak_bytes) : "-",
                      seconds(planned.predicted_seconds.value_or(0.0)),
                      seconds(local != nullptr ? local->expected_seconds
                                               : planned.predicted_seconds.value_or(0.0)),
                      local != nullptr && planned.fits ? format_bytes(local->cache_bytes) : "-",
                      format_bytes_up(planned.minimum_budget_bytes)});
    }
  }
  print(line.json ? plans.dump(2) + '\n' : format_table(rows));
  if (!fits) throw does_not_fit(last);
}

void run_plan(const CommandLine& line) {
  const ExperimentOptions& options = line.options;
  const DataShape data = line.data ? *line.data : data_shape(load_data(options));
  checked_model_name(options, data);
  if (!line.budgets.empty()) return run_plans(line, data);
  const ExperimentPlan plan = plan_experiment(options, data);
  print(line.json ? to_json(plan).dump(2) + '\n'
                  : to_table(plan) + (line.explain ? '\n' + explanation(plan) : ""));
  if (!any_fits(plan.summary)) throw does_not_fit(plan.summary);
  if (!line.plan_to_save.empty()) replace_file(line.plan_to_save, to_json(plan).dump(2) + '\n');
  if (options.trace.empty()) return;
  const InterruptGuard guard;
  MemoryTrace trace;
  trace_plan(plan, options, trace);
  InterruptGuard::check("planning");
  trace.write(options.trace);
  if (!line.json)
    print(fmt::format("memory trace: {}{}\n", options.trace.string(),
                      options.trace.extension() == ".json" ? " (to open in ui.perfetto.dev)" : ""));
}

std::string next_steps(const CommandLine& line, const Summary& summary,
                       const std::filesystem::path& folder, const std::string& program) {
  const ExperimentOptions& options = line.options;
  const std::string config = quoted((folder / "config.toml").string());
  std::string text = fmt::format("\nrun folder: {}\ntry next:\n", folder.string());
  for (const MethodSummary& method : summary.methods) {
    if (method.weights.empty()) continue;
    text += fmt::format("  {} eval {} --config {}\n", quoted(program),
                        quoted((folder / method.weights).string()), config);
  }
  text += fmt::format("  {} plan --config {} --trace {}\n", quoted(program), config,
                      quoted((folder / "memory.json").string()));
  if (!options.trace.empty())
    text += fmt::format("memory trace of this run: {}\n", options.trace.string());
  return text;
}

TrainingObserver observe(Progress& progress) {
  TrainingObserver observer;
  observer.on_step = [&progress](const Stage& stage, const nn::StepProgress& step) {
    progress.step(stage, step);
    InterruptGuard::check(fmt::format("{} epoch {}/{}", describe(stage), step.epoch, step.epochs));
  };
  observer.on_epoch = [&progress](const Stage& stage, const nn::EpochMetrics& metrics) {
    progress.epoch(stage, metrics);  // no interrupt here: the checkpoint is written next
  };
  observer.on_batch = [](const Stage& stage) { InterruptGuard::check(describe(stage)); };
  observer.on_phase = [&progress](const Stage& stage, const char* phase) {
    progress.phase(stage, phase);
  };
  observer.on_message = [&progress](const std::string& text) { progress.message(text); };
  return observer;
}

ComparisonOptions comparison_of(const CommandLine& line) {
  ComparisonOptions comparison{line.options, line.budgets, line.seeds, {}};
  if (comparison.budgets.empty()) comparison.budgets = {line.options.budget};
  if (comparison.seeds.empty()) comparison.seeds = {line.options.training.seed};
  comparison.config_text = [text = line.options.config_text](std::int64_t budget,
                                                             std::uint64_t seed) {
    return with_value(with_value(text, "seed", std::to_string(seed)), "budget",
                      budget > 0 ? std::to_string(budget) : "all");
  };
  return comparison;
}

bool trains_by(const CommandLine& line, const char* method) {
  const auto& methods = line.options.methods;
  return std::find(methods.begin(), methods.end(), method) != methods.end();
}

// What can be known to be wrong before a run folder is made. Returns how long all will take.
std::vector<TimeLeft::Part> check_before_training(const CommandLine& line,
                                                  const ComparisonOptions& comparison,
                                                  const nn::TrainingData& data, TimeModel& times) {
  if (data.validation_count() == 0 && trains_by(line, "neuroflux"))
    fail_usage("--validation-fraction: {} leaves no images to choose an exit of neuroflux by",
               line.options.data_options.validation_fraction);
  bool fits = false;
  std::vector<TimeLeft::Part> parts;
  std::int64_t run = 0;
  for (const std::int64_t budget : comparison.budgets) {
    ExperimentOptions options = comparison.experiment;
    options.budget = budget;
    const ExperimentPlan plan = plan_experiment(options, data_shape(data), times);
    InterruptGuard::check("planning");
    for (std::size_t i = 0; i < comparison.seeds.size(); ++i)
      std::ranges::move(parts_of(++run, plan.summary, options.training.stop_when_saturated),
                        std::back_inserter(parts));
    fits = fits || any_fits(plan.summary);
    if (fits || budget != comparison.budgets.back()) continue;
    print(line.json ? to_json(plan).dump(2) + '\n' : to_table(plan.summary));
    throw does_not_fit(plan.summary);
  }
  return parts;
}

// Features that are cached once can't be augmented anew.
void warn_of_frozen_augmentation(const CommandLine& line, Progress& progress) {
  const nn::TrainingDataOptions& augmentation = line.options.data_options;
  if ((augmentation.crop_padding > 0 || augmentation.flip) && trains_by(line, "neuroflux"))
    progress.message(
        "augmentation acts on the first block of neuroflux only: later ones learn from features "
        "that were cached once");
}

// With what is needed to go on, should the run be cut off.
RunFolder begin_folder(const CommandLine& line, const ComparisonOptions& comparison,
                       const std::string& model) {
  const ExperimentOptions& options = comparison.experiment;
  RunFolder folder = options.run_folder.empty()
                         ? RunFolder::fresh(fmt::format("{}-{}-{}", to_string(line.command), model,
                                                        comparison.seeds.front()))
                         : RunFolder::given(options.run_folder, line.overwrite);
  const auto absolute = [](const std::filesystem::path& path) {
    return path.empty() ? "" : std::filesystem::absolute(path).string();
  };
  replace_file(folder.path() / "config.toml", options.config_text);
  write_started_run(
      folder.path(),
      {to_string(line.command), options.data == "generated" ? options.data : absolute(options.data),
       absolute(options.training.cache_folder), line.budgets, line.seeds});
  return folder;
}

// Behind the tables, which tell of the methods that did not.
void fail_where_diverged(const std::vector<ComparisonRun>& runs) {
  std::vector<std::string> errors;
  for (const ComparisonRun& run : runs)
    for (const MethodSummary& method : run.summary.methods)
      if (method.diverged) errors.push_back(method.error);
  if (errors.empty()) return;
  if (errors.size() == 1) throw Diverged(errors.front());
  fail_diverged("{} trainings diverged; the first: {}", errors.size(), errors.front());
}

void run_training(const CommandLine& line, const std::string& program) {
  const InterruptGuard guard;
  ComparisonOptions comparison = comparison_of(line);
  ExperimentOptions& options = comparison.experiment;
  // A run that is going on is found before any work is done.
  std::optional<RunFolder> folder;
  if (options.resume) folder.emplace(RunFolder::held(options.run_folder));
  const nn::TrainingData data = load_data(options);
  const std::string model = checked_model_name(options, data_shape(data));
  const std::unique_ptr<TimeModel> times = make_time_model(comparison);
  if (options.resume) load_times(options.run_folder, *times);
  TimeLeft left(check_before_training(line, comparison, data, *times));
  if (!folder) folder.emplace(begin_folder(line, comparison, model));
  options.run_folder = folder->path();
  comparison.lock = folder->lock();
  std::vector<ComparisonRun> runs;
  {
    Progress progress(stderr, isatty(STDERR_FILENO) != 0, data.validation_count() > 0, &left);
    if (!options.resume) warn_of_frozen_augmentation(line, progress);
    const auto announce = [&](std::int64_t run, std::int64_t count, std::int64_t budget,
                              std::uint64_t seed) {
      left.begin_run(run);
      if (count > 1)
        progress.message(fmt::format("run {} of {}: budget {}, seed {}", run, count,
                                     budget > 0 ? format_bytes(budget) : "all", seed));
    };
    try {
      runs = run_comparison(comparison, *times, observe(progress), announce);
      InterruptGuard::check("the end of the run");
    } catch (const Interrupted& interrupted) {
      throw Interrupted(fmt::format("{}; to go on: {} {} --resume {}", interrupted.what(),
                                    quoted(std::filesystem::path(program).filename().string()),
                                    to_string(line.command), quoted(folder->path().string())));
    }
  }
  const Summary& summary = runs.front().summary;
  if (line.json) {
    nlohmann::json document = runs.size() > 1 ? to_json(runs) : to_json(summary);
    document["run_folder"] = folder->path().string();
    print(document.dump(2) + '\n');
  } else if (runs.size() > 1) {
    print(to_markdown(runs) + fmt::format("\nrun folder: {}\n", folder->path().string()));
  } else {
    print(to_table(summary) + next_steps(line, summary, folder->path(), program));
  }
  fail_where_diverged(runs);
}

void run_eval(const CommandLine& line) {
  const Evaluation result = evaluate_saved(line.weights, line.options);
  if (line.json) {
    const nlohmann::json document{{"model", result.model},
                                  {"exit_unit", result.exit_unit},
                                  {"parameters", result.parameters},
                                  {"images", result.images},
                                  {"test_accuracy", result.accuracy},
                                  {"images_per_second", result.images_per_second},
                                  {"batch", result.batch},
                                  {"peak_bytes", result.peak_bytes}};
    print(document.dump(2) + '\n');
    return;
  }
  const std::string part =
      result.exit_unit == 0 ? "whole net" : fmt::format("exit at unit {}", result.exit_unit);
  print(
      fmt::format("{}, {}, {} parameters: test accuracy {:.2f}% of {} images; {:.0f} images/s at "
                  "batch {}, peak memory {}\n",
                  result.model, part, result.parameters, result.accuracy * 100.0, result.images,
                  result.images_per_second, result.batch, format_bytes(result.peak_bytes)));
}

void run_export(const CommandLine& line) {
  const ExportedExit exported = export_exit(line.exported_run, line.wanted_exit, line.exit_file);
  const ExitSummary& exit = exported.exit;
  if (line.json) {
    nlohmann::json document{
        {"model", exported.model},       {"method", line.wanted_exit.method},
        {"exit_unit", exit.unit},        {"unit_count", exported.unit_count},
        {"parameters", exit.parameters}, {"full_parameters", exported.full_parameters},
        {"flops", exit.flops},           {"validation_accuracy", nullptr},
        {"test_accuracy", nullptr},      {"weights", line.exit_file.string()}};
    if (exported.validation_accuracy)
      document["validation_accuracy"] = *exported.validation_accuracy;
    if (exported.test_accuracy) document["test_accuracy"] = *exported.test_accuracy;
    print(document.dump(2) + '\n');
    return;
  }
  const auto told = [](const char* set, const std::optional<double>& accuracy) {
    return accuracy ? fmt::format("{} accuracy {:.2f}%", set, *accuracy * 100.0) : "";
  };
  print(fmt::format(
      "{}, exit {} of {} units: {} parameters, {:.1f} times fewer than the whole net; {:.3g} MFLOP "
      "an image{}{}\nweights: {}\n",
      exported.model, exit.unit, exported.unit_count, exit.parameters,
      static_cast<double>(exported.full_parameters) / static_cast<double>(exit.parameters),
      static_cast<double>(exit.flops) / 1e6, told("; validation", exported.validation_accuracy),
      told(", test", exported.test_accuracy), line.exit_file.string()));
}

void run_report(const CommandLine& line) {
  replace_file(line.report_file, report_page(line.reported));
  print(fmt::format("report: {}\n", line.report_file.string()));
}

void run_kernels(const CommandLine& line) {
  const std::vector<LauncherFigures> launchers = look_at_kernels(line.kernels);
  print(line.json ? to_json(line.kernels, launchers).dump(2) + '\n' : to_table(launchers));
}

}  // namespace

void run_command(const CommandLine& line, const std::string& program) {
  switch (line.command) {
    case Command::plan:
      return run_plan(line);
    case Command::train:
    case Command::compare:
      return run_training(line, program);
    case Command::eval:
      return run_eval(line);
    case Command::export_exit:
      return run_export(line);
    case Command::report:
      return run_report(line);
    case Command::kernels:
      return run_kernels(line);
  }
}

}  // namespace nf::tools
