// Planning for an experiment: no device, no data.
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/text.h"
#include "neuroflux/cache_order.h"
#include "neuroflux/experiment.h"
#include "neuroflux/plan_file.h"
#include "neuroflux/time_profile.h"
#include "nn/models/registry.h"
#include "nn/stage_batch.h"

namespace fs = std::filesystem;

namespace nf {
namespace {

using nlohmann::json;

// The device with the budget that the training will have: workspaces depend on it.
ContextOptions device_with_budget(const ExperimentOptions& options) {
  ContextOptions device = options.device;
  device.budget =
      options.budget > 0 ? options.budget : make_meta_context(device)->backend().memory_bytes();
  return device;
}

// The folder where the cache will lie may not exist yet, and should not because of a plan.
fs::path storage_to_measure(const ExperimentOptions& options) {
  const fs::path& wanted =
      options.training.cache_folder.empty() ? options.run_folder : options.training.cache_folder;
  fs::path existing = fs::absolute(wanted.empty() ? fs::path(".") : wanted);
  std::error_code status;
  while (!fs::is_directory(existing, status) && existing.has_relative_path())
    existing = existing.parent_path();
  return existing / fmt::format("neuroflux-speed-{}", getpid());
}

// (H, W, C) of a block's.
const Shape& last_output(const Plan& plan, std::size_t block) {
  return plan.units[static_cast<std::size_t>(plan.blocks[block].last_unit)].output;
}

std::string seconds_text(double seconds) {
  if (seconds < 1.0) return fmt::format("{:.3g} ms", seconds * 1e3);
  return seconds < 600.0 ? fmt::format("{:.3g} s", seconds)
                         : fmt::format("{:.3g} min", seconds / 60.0);
}

// Units and blocks for people.
std::string local_table(const std::string& method, const Plan& plan) {
  std::vector<std::vector<std::string>> rows{{"unit", "name", "output", "parameters", "MFLOP",
                                              "aux width", "aux parameters", "aux MFLOP",
                                              "exit parameters", "feasible batch", "least budget"}};
  const auto mega = [](std::int64_t flops) {
    return fmt::format("{:.3g}", static_cast<double>(flops) / 1e6);
  };
  for (const UnitPlan& unit : plan.units)
    rows.push_back({std::to_string(rows.size()), unit.name, unit.output.str(),
                    std::to_string(unit.parameters), mega(unit.flops),
                    unit.auxiliary_width > 0 ? std::to_string(unit.auxiliary_width) : "head",
                    std::to_string(unit.auxiliary_parameters), mega(unit.auxiliary_flops),
                    std::to_string(unit.exit_parameters), std::to_string(unit.feasible_batch),
                    format_bytes_up(unit.minimum_budget)});
  std::string text = fmt::format("{}: units, auxiliary networks by the rule {}\n{}\n", method,
                                 plan.auxiliary_rule, format_table(rows));
  if (plan.blocks.empty()) return text;
  rows = {{"block", "units", "batch", "predicted peak", "cache written", "training", "validation",
           "cache"}};
  const bool linear = std::any_of(plan.blocks.begin(), plan.blocks.end(),
                                  [](const BlockPlan& block) { return block.linear_peak_bytes; });
  if (linear) rows.front().emplace_back("linear model's peak");
  for (const BlockPlan& block : plan.blocks) {
    rows.push_back({std::to_string(rows.size()),
                    fmt::format("{}-{}", block.first_unit + 1, block.last_unit + 1),
                    std::to_string(block.batch), format_bytes(block.predicted_peak_bytes),
                    format_bytes(block.cache_bytes), seconds_text(block.time.train),
                    seconds_text(block.time.evaluation), seconds_text(block.time.cache)});
    if (!linear) continue;
    rows.back().push_back("-");
    if (!block.linear_peak_bytes) continue;
    const auto bytes = static_cast<double>(*block.linear_peak_bytes);
    const auto exact = static_cast<double>(block.predicted_peak_bytes);
    rows.back().back() = fmt::format("{} ({:+.1f}%)", format_bytes(*block.linear_peak_bytes),
                                     (bytes / exact - 1.0) * 100.0);
  }
  return text + fmt::format(
                    "{}: blocks, partition {}, times {}\n{}all blocks {}; expected with early stop "
                    "{}\n\n",
                    method, plan.partition, plan.time_source, format_table(rows),
                    seconds_text(plan.predicted_seconds), seconds_text(plan.expected_seconds));
}

// The exit is chosen when bp's accuracy is known.
void check_exit_within_bp(const ExperimentOptions& options) {
  if (!options.exit_within_bp) return;
  NF_CHECK(*options.exit_within_bp >= 0.0 && *options.exit_within_bp <= 100.0,
           "exit-within-bp: must be in [0, 100] points, got {}", *options.exit_within_bp);
  const std::vector<std::string>& methods = options.methods;
  const auto bp = std::find(methods.begin(), methods.end(), "bp");
  NF_CHECK(std::find(bp, methods.end(), "neuroflux") != methods.end(),
           "exit-within-bp: bp must be among the methods, and neuroflux behind it");
  NF_CHECK(options.training.exit_accuracy == 0.0,
           "exit-within-bp: does not go with exit-accuracy; name one of them");
}

}  // namespace

void check_experiment(const ExperimentOptions& options) {
  NF_CHECK(!options.methods.empty(), "methods: none is named");
  for (const std::string& method : options.methods)
    NF_CHECK(
        std::find(method_names().begin(), method_names().end(), method) != method_names().end(),
        "method: '{}' is not known; did you mean '{}'?", method,
        nearest_name(method, method_names()));
  NF_CHECK(options.budget >= 0, "budget: must be at least 1 byte, got {}", options.budget);
  NF_CHECK(options.batch >= 1, "batch: must be at least 1, got {}", options.batch);
  NF_CHECK(options.rho >= 0.0 && options.rho <= 1.0, "rho: must be in [0, 1], got {}", options.rho);
  NF_CHECK(options.linear_points >= 2, "linear points: must be at least 2, got {}",
           options.linear_points);
  const LocalTrainingOptions& training = options.training;
  NF_CHECK(training.epochs >= 1, "epochs: must be at least 1, got {}", training.epochs);
  NF_CHECK(training.reference_batch >= 1, "reference batch: must be at least 1, got {}",
           training.reference_batch);
  NF_CHECK(training.warmup_epochs >= 0.0, "warm-up: must not be negative, got {}",
           training.warmup_epochs);
  NF_CHECK(training.label_smoothing >= 0.0 && training.label_smoothing < 1.0,
           "label smoothing: must be in [0, 1), got {}", training.label_smoothing);
  NF_CHECK(training.patience >= 1, "patience: must be at least 1, got {}", training.patience);
  NF_CHECK(training.improvement >= 0.0 && training.improvement <= 1.0,
           "improvement: must be in [0, 1], got {}", training.improvement);
  NF_CHECK(training.exit_tolerance >= 0.0 && training.exit_tolerance <= 1.0,
           "tolerance: must be in [0, 1], got {}", training.exit_tolerance);
  NF_CHECK(training.exit_accuracy >= 0.0 && training.exit_accuracy <= 1.0,
           "exit accuracy: must be in [0, 1], got {}", training.exit_accuracy);
  check_exit_within_bp(options);
  NF_CHECK(training.cache_dtype == DType::f32 || training.cache_dtype == DType::bf16 ||
               training.cache_dtype == DType::f16,
           "cache type: must be f32, bf16 or f16, got {}", to_string(training.cache_dtype));
  NF_CHECK(options.cache_views >= 1 && options.cache_views <= kMaxCacheViews,
           "cache views: must be in [1, {}], got {}", kMaxCacheViews, options.cache_views);
  NF_CHECK(options.cache_views == 1 || options.data_options.crop_padding > 0 ||
               options.data_options.flip,
           "cache views: {} views of images that are not augmented would be alike; augmentation "
           "(crop or flip) is needed",
           options.cache_views);
  NF_CHECK(training.cache_host_bytes >= 0, "cache host memory: must not be negative, got {}",
           training.cache_host_bytes);
  nn::check_optimizer_options(training.optimizer);
  make_auxiliary_rule(options.auxiliary);
  parse_partition_rule(options.partition);
  if (!options.trace.empty()) check_trace_path(options.trace);
}

DataShape data_shape(const nn::TrainingData& data) {
  return {data.sample_shape(),     data.classes(),    data.train_count(),
          data.validation_count(), data.test_count(), data.pixel_format()};
}

std::unique_ptr<TimeModel> make_time_model(const ExperimentOptions& options) {
  const LocalTrainingOptions& training = options.training;
  if (!options.profile) {
    DeviceSpeed speed = nominal_speed(options.device);
    if (training.cache_place == CachePlace::memory) speed.storage = memory_speed();
    return make_predicted_times(options.device, training.optimizer, speed);
  }
  const MeasureOptions measure{.device = device_with_budget(options),
                               .optimizer = training.optimizer,
                               .cache_folder = storage_to_measure(options),
                               .cache_dtype = training.cache_dtype,
                               .cache_place = training.cache_place,
                               .cache_storage = training.cache_storage};
  return remember_times(make_measured_times(measure));
}

ExperimentPlan plan_experiment(const ExperimentOptions& options, const DataShape& data) {
  check_experiment(options);
  return plan_experiment(options, data, *make_time_model(options));
}

ExperimentPlan plan_experiment(const ExperimentOptions& given, const DataShape& data,
                               TimeModel& times) {
  check_experiment(given);
  ExperimentOptions options = given;
  options.device = device_with_budget(given);
  ExperimentPlan plan;
  plan.model = nn::make_model(options.model, {.input = data.sample,
                                              .classes = data.classes,
                                              .width = options.width,
                                              .dropout = options.dropout});
  PlanOptions plan_options;
  plan_options.budget = options.device.budget;
  plan_options.batch = options.batch;
  plan_options.rho = options.rho;
  plan_options.train_count = data.train_count;
  plan_options.validation_count = data.validation_count;
  plan_options.test_count = data.test_count;
  plan_options.cache_dtype = options.training.cache_dtype;
  // Each epoch reads one: more would be written in vain.
  plan_options.cache_views = std::min(options.cache_views, options.training.epochs);
  plan_options.optimizer = options.training.optimizer;
  plan_options.partition = parse_partition_rule(options.partition);
  plan_options.memory_model = options.memory_model;
  plan_options.linear_points = options.linear_points;
  plan_options.epochs = options.training.epochs;
  plan_options.stop_when_saturated = options.training.stop_when_saturated;
  plan_options.patience = options.training.patience;
  const ContextPtr meta = make_meta_context(options.device);
  if (nn::sample_form(meta->backend()) == nn::SampleForm::pixels)
    plan_options.format = data.stored.value_or(nn::PixelFormat{data.sample, data.sample[2]});

  plan.cache_place = options.training.cache_place;
  plan.cache_dtype = options.training.cache_dtype;

  Summary& summary = plan.summary;
  summary.model = plan.model->name();
  summary.input = data.sample;
  summary.format = plan_options.format;
  summary.classes = data.classes;
  summary.device = to_string(options.device.device);
  summary.threads = meta->backend().threads();
  if (const std::int64_t bytes = meta->backend().context_bytes(); bytes >= 0)
    summary.context_bytes = bytes;
  summary.seed = options.training.seed;
  summary.budget_bytes = plan_options.budget;
  summary.train_images = data.train_count;
  summary.validation_images = data.validation_count;
  summary.test_images = data.test_count;
  for (const std::string& name : options.methods) {
    plan.methods.push_back(plan_method(name, {*plan.model, options, plan_options, times}));
    summary.methods.push_back(plan.methods.back()->planned());
  }
  return plan;
}

json to_json(const ExperimentPlan& plan) {
  json result = to_json(plan.summary);
  for (std::size_t i = 0; i < plan.methods.size(); ++i) {
    const Plan* local = plan.methods[i]->local_plan();
    if (local == nullptr) continue;
    json& method = result["methods"][i];
    json blocks = std::move(method["blocks"]);
    method.update(to_json(*local));
    for (std::size_t k = 0; k < blocks.size(); ++k) {
      blocks[k].update(method["blocks"][k]);
      if (k + 1 == blocks.size()) break;
      const CacheSpec cache{.name = "train",
                            .count = plan.summary.train_images,
                            .sample_shape = last_output(*local, k),
                            .dtype = plan.cache_dtype};
      blocks[k]["cache_chunk_samples"] = cache_layout(cache).samples_per_chunk;
    }
    if (blocks.size() > 1)
      method["cache_order"] = {{"kind", kCacheOrder}, {"window_chunks", kWindowChunks}};
    method["blocks"] = std::move(blocks);
  }
  return result;
}

std::string to_table(const ExperimentPlan& plan) {
  std::string text;
  for (const auto& method : plan.methods)
    if (const Plan* local = method->local_plan())
      text += local_table(method->planned().name, *local);
  std::vector<std::vector<std::string>> rows{{"method", "status", "batch", "update",
                                              "predicted peak", "predicted time", "least budget",
                                              "parameters"}};
  for (const MethodSummary& method : plan.summary.methods) {
    rows.push_back({method.name, method.fits ? "fits" : "does not fit",
                    batches_text(method.batches), to_string(method.update),
                    method.predicted_peak_bytes ? format_bytes(*method.predicted_peak_bytes) : "-",
                    method.predicted_seconds ? seconds_text(*method.predicted_seconds) : "-",
                    format_bytes_up(method.minimum_budget_bytes),
                    std::to_string(method.full_parameters)});
  }
  text += format_table(rows);
  for (const auto& method : plan.methods) {
    const Plan* local = method->local_plan();
    if (local != nullptr && local->cache_bytes > 0)
      text += fmt::format("activation cache of {} {}: at most {}\n", method->planned().name,
                          plan.cache_place == CachePlace::disk ? "on storage" : "in host memory",
                          format_bytes(local->cache_bytes));
  }
  return text;
}

std::string explanation(const ExperimentPlan& plan) {
  std::string text;
  for (const auto& method : plan.methods) {
    const Plan* local = method->local_plan();
    if (local == nullptr) continue;
    text += fmt::format("{}: why each unit is where it is\n", method->planned().name);
    std::int64_t number = 0;
    for (const UnitPlan& unit : local->units)
      text += fmt::format("  {:>3} {}: width {}: {}.{}\n", ++number, unit.name,
                          unit.auxiliary_width > 0 ? std::to_string(unit.auxiliary_width) : "-",
                          unit.why_width, unit.why_here.empty() ? "" : " " + unit.why_here + ".");
  }
  return text;
}

void trace_plan(const ExperimentPlan& plan, const ExperimentOptions& options, MemoryTrace& trace) {
  const ContextPtr meta = make_meta_context(device_with_budget(options));
  const TraceScope recording(meta->pool(), &trace);
  for (const auto& method : plan.methods)
    if (method->planned().fits) method->trace(meta, options.training.optimizer, trace);
}

}  // namespace nf
