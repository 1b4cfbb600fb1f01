// Planning for an experiment: no device, no data.
#include <nlohmann/json.hpp>

#include "engine/text.h"
#include "engine/timer.h"
#include "neuroflux/experiment.h"
#include "neuroflux/local_block.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf {
namespace {

using nlohmann::json;

std::int64_t usable_budget(const ExperimentOptions& options) {
  if (options.budget > 0) return options.budget;
  return make_meta_context(options.device)->backend().memory_bytes();
}

bool wants(const ExperimentOptions& options, const std::string& method) {
  for (const std::string& name : options.methods)
    if (name == method) return true;
  return false;
}

MethodSummary bp_summary(const ExperimentPlan& plan) {
  MethodSummary method;
  method.name = "bp";
  method.fits = plan.bp.fits;
  method.minimum_budget_bytes = plan.bp.minimum_budget;
  method.full_parameters = plan.model->parameter_count();
  if (!plan.bp.fits) return method;
  method.batches = {plan.bp.batch};
  method.predicted_peak_bytes = plan.bp.predicted_peak_bytes;
  method.parameters = method.full_parameters;
  method.flops = plan.model->flops(plan.model->input_shape(1));
  return method;
}

MethodSummary neuroflux_summary(const ExperimentPlan& plan) {
  MethodSummary method;
  method.name = "neuroflux";
  method.fits = plan.plan.fits;
  method.minimum_budget_bytes = plan.plan.minimum_budget;
  method.full_parameters = plan.plan.full_parameters;
  method.unit_count = static_cast<std::int64_t>(plan.plan.units.size());
  if (!plan.plan.fits) return method;
  method.predicted_peak_bytes = plan.plan.predicted_peak_bytes;
  for (const BlockPlan& block : plan.plan.blocks) {
    method.batches.push_back(block.batch);
    BlockSummary summary;
    summary.first_unit = block.first_unit + 1;
    summary.last_unit = block.last_unit + 1;
    summary.batch = block.batch;
    summary.predicted_peak_bytes = block.predicted_peak_bytes;
    summary.cache_bytes = block.cache_bytes;
    method.blocks.push_back(summary);
  }
  return method;
}

}  // namespace

const std::vector<std::string>& method_names() {
  static const std::vector<std::string> names{"bp", "neuroflux"};
  return names;
}

void check_experiment(const ExperimentOptions& options) {
  NF_CHECK(!options.methods.empty(), "methods: none is named");
  for (const std::string& method : options.methods)
    NF_CHECK(method == "bp" || method == "neuroflux",
             "method: '{}' is not known; did you mean '{}'?", method,
             nearest_name(method, method_names()));
  NF_CHECK(options.budget >= 0, "budget: must be at least 1 byte, got {}", options.budget);
  NF_CHECK(options.batch >= 1, "batch: must be at least 1, got {}", options.batch);
  NF_CHECK(options.rho >= 0.0 && options.rho <= 1.0, "rho: must be in [0, 1], got {}", options.rho);
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
  NF_CHECK(training.cache_dtype == DType::f32 || training.cache_dtype == DType::bf16 ||
               training.cache_dtype == DType::f16,
           "cache type: must be f32, bf16 or f16, got {}", to_string(training.cache_dtype));
  nn::check_optimizer_options(training.optimizer);
  make_auxiliary_rule(options.auxiliary);
  if (!options.trace.empty()) check_trace_path(options.trace);
}

DataShape data_shape(const nn::TrainingData& data) {
  return {data.sample_shape(), data.classes(), data.train_count(), data.validation_count(),
          data.test_count()};
}

ExperimentPlan plan_experiment(const ExperimentOptions& options, const DataShape& data) {
  check_experiment(options);
  ExperimentPlan plan;
  plan.model = nn::make_model(options.model, {.input = data.sample,
                                              .classes = data.classes,
                                              .width = options.width,
                                              .dropout = options.dropout});
  plan.rule = make_auxiliary_rule(options.auxiliary);
  PlanOptions plan_options;
  plan_options.budget = usable_budget(options);
  plan_options.batch = options.batch;
  plan_options.rho = options.rho;
  plan_options.train_count = data.train_count;
  plan_options.validation_count = data.validation_count;
  plan_options.test_count = data.test_count;
  plan_options.cache_dtype = options.training.cache_dtype;
  plan_options.optimizer = options.training.optimizer;

  Summary& summary = plan.summary;
  summary.model = plan.model->name();
  summary.device = to_string(options.device.device);
  const ContextPtr meta = make_meta_context(options.device);
  summary.threads = meta->backend().threads();
  if (const std::int64_t bytes = meta->backend().context_bytes(); bytes >= 0)
    summary.context_bytes = bytes;
  summary.seed = options.training.seed;
  summary.budget_bytes = plan_options.budget;
  summary.train_images = data.train_count;
  summary.validation_images = data.validation_count;
  summary.test_images = data.test_count;
  if (wants(options, "bp")) {
    const Timer timer;
    plan.bp = make_bp_plan(*plan.model, plan_options, options.device);
    plan.bp_seconds = timer.seconds();
  }
  if (wants(options, "neuroflux")) {
    const Timer timer;
    plan.plan = make_plan(*plan.model, *plan.rule, plan_options, options.device);
    plan.neuroflux_seconds = timer.seconds();
  }
  for (const std::string& method : options.methods)
    summary.methods.push_back(method == "bp" ? bp_summary(plan) : neuroflux_summary(plan));
  return plan;
}

json to_json(const ExperimentPlan& plan) {
  json result = to_json(plan.summary);
  if (plan.plan.units.empty()) return result;
  result["auxiliary_rule"] = plan.plan.auxiliary_rule;
  result["cache_bytes"] = plan.plan.cache_bytes;
  result["units"] = json::array();
  for (const UnitPlan& unit : plan.plan.units)
    result["units"].push_back({{"name", unit.name},
                               {"output", std::vector<std::int64_t>(unit.output.extents().begin(),
                                                                    unit.output.extents().end())},
                               {"parameters", unit.parameters},
                               {"auxiliary_width", unit.auxiliary_width},
                               {"auxiliary_parameters", unit.auxiliary_parameters},
                               {"flops", unit.flops},
                               {"auxiliary_flops", unit.auxiliary_flops},
                               {"feasible_batch", unit.feasible_batch},
                               {"minimum_budget_bytes", unit.minimum_budget},
                               {"exit_parameters", unit.exit_parameters},
                               {"exit_flops", unit.exit_flops}});
  return result;
}

std::string to_table(const ExperimentPlan& plan) {
  std::string text;
  if (!plan.plan.units.empty()) {
    std::vector<std::vector<std::string>> rows{{"unit", "name", "output", "parameters", "aux width",
                                                "aux parameters", "exit parameters",
                                                "feasible batch", "least budget"}};
    std::int64_t number = 0;
    for (const UnitPlan& unit : plan.plan.units)
      rows.push_back(
          {std::to_string(++number), unit.name, unit.output.str(), std::to_string(unit.parameters),
           unit.auxiliary_width > 0 ? std::to_string(unit.auxiliary_width) : "head",
           std::to_string(unit.auxiliary_parameters), std::to_string(unit.exit_parameters),
           std::to_string(unit.feasible_batch), format_bytes_up(unit.minimum_budget)});
    text += format_table(rows) + '\n';
  }
  if (!plan.plan.blocks.empty()) {
    std::vector<std::vector<std::string>> rows{
        {"block", "units", "batch", "predicted peak", "cache written"}};
    std::int64_t number = 0;
    for (const BlockPlan& block : plan.plan.blocks)
      rows.push_back({std::to_string(++number),
                      fmt::format("{}-{}", block.first_unit + 1, block.last_unit + 1),
                      std::to_string(block.batch), format_bytes(block.predicted_peak_bytes),
                      format_bytes(block.cache_bytes)});
    text += format_table(rows) + '\n';
  }
  std::vector<std::vector<std::string>> rows{
      {"method", "status", "batch", "predicted peak", "least budget", "parameters"}};
  for (const MethodSummary& method : plan.summary.methods) {
    rows.push_back(
        {method.name, method.fits ? "fits" : "does not fit", batches_text(method.batches),
         method.predicted_peak_bytes ? format_bytes(*method.predicted_peak_bytes) : "-",
         format_bytes_up(method.minimum_budget_bytes), std::to_string(method.full_parameters)});
  }
  text += format_table(rows);
  if (!plan.plan.blocks.empty())
    text += fmt::format("activation cache on storage: at most {}\n",
                        format_bytes(plan.plan.cache_bytes));
  return text;
}

void trace_plan(const ExperimentPlan& plan, const ExperimentOptions& options, MemoryTrace& trace) {
  const ContextPtr meta = make_meta_context(options.device);
  const TraceScope recording(meta->pool(), &trace);
  if (plan.bp.fits) {
    trace.set_stage(describe({.method = "bp"}));
    nn::BpTrainer trainer(meta, *plan.model, options.training.optimizer, 0);
    trainer.train(nullptr, nullptr, plan.bp.batch, {});
  }
  if (!plan.plan.fits) return;
  const LocalNet net(*plan.model, *plan.rule, plan.plan);
  Stage stage{"neuroflux", 0, static_cast<std::int64_t>(plan.plan.blocks.size())};
  for (const BlockPlan& block : plan.plan.blocks) {
    ++stage.block;
    trace.set_stage(describe(stage));
    LocalBlock local(meta, net.range(block.first_unit, block.last_unit),
                     net.input_sample(block.first_unit), options.training.optimizer, 0);
    local.train(nullptr, nullptr, block.batch, {});
  }
}

}  // namespace nf
