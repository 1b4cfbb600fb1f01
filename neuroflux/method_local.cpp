// Local learning: `neuroflux`, block by block from the activation cache, and `local`, its baseline,
// all units at once with classic auxiliary networks.
#include <algorithm>

#include "engine/timer.h"
#include "neuroflux/export_exit.h"
#include "neuroflux/joint_units.h"
#include "neuroflux/local_block.h"
#include "neuroflux/method.h"
#include "neuroflux/plan_file.h"
#include "neuroflux/saved_net.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"

namespace nf {
namespace {

BlockSummary describe_block(const BlockPlan& block) {
  BlockSummary summary;
  summary.first_unit = block.first_unit + 1;
  summary.last_unit = block.last_unit + 1;
  summary.batch = block.batch;
  summary.predicted_peak_bytes = block.predicted_peak_bytes;
  summary.cache_bytes = block.cache_bytes;
  summary.predicted_seconds = block.time.train + block.time.cache;
  return summary;
}

// The net with units of its own, which may be larger ones.
std::unique_ptr<nn::Model> copy_model(const nn::Model& model) {
  return nn::make_model(model.name(), model.options());
}

Plan plan_or_read(const MethodInput& input, nn::Model& model, const AuxiliaryRule& rule) {
  const std::filesystem::path& file = input.options.plan_file;
  if (file.empty()) return make_plan(model, rule, input.plan, input.options.device, input.times);
  PlanOptions options = input.plan;
  if (!options.optimizer.update) options.optimizer.update = read_plan_update(file);
  if (options.cache_views == 1) {
    ExperimentOptions with_views = input.options;  // several of them want augmentation
    with_views.cache_views = read_plan_views(file).value_or(1);
    check_experiment(with_views);
    options.cache_views = std::min(with_views.cache_views, input.options.training.epochs);
  }
  return complete_plan(model, rule, read_plan_file(file, model), options, input.options.device,
                       input.times);
}

class LocalMethod : public Method {
 public:
  LocalMethod(const char* name, std::unique_ptr<nn::Model> model,
              std::shared_ptr<const AuxiliaryRule> rule, Plan plan, double plan_seconds)
      : model_holder_(std::move(model)),
        model_(*model_holder_),
        rule_(std::move(rule)),
        plan_(std::move(plan)) {
    planned_.name = name;
    planned_.plan_seconds = plan_seconds;
    planned_.fits = plan_.fits;
    planned_.minimum_budget_bytes = plan_.minimum_budget;
    planned_.update = plan_.update;
    planned_.full_parameters = plan_.full_parameters;
    planned_.unit_count = model_.unit_count();
    if (!plan_.fits) return;
    planned_.predicted_peak_bytes = plan_.predicted_peak_bytes;
    planned_.predicted_seconds = plan_.predicted_seconds;
    planned_.cache_bytes = plan_.cache_bytes;
    for (const BlockPlan& block : plan_.blocks) {
      planned_.batches.push_back(block.batch);
      planned_.blocks.push_back(describe_block(block));
    }
  }

  const Plan* local_plan() const override { return &plan_; }

  void trace(const ContextPtr& meta, const nn::OptimizerOptions& options,
             MemoryTrace& trace) const override {
    const LocalNet net(model_, *rule_, plan_);
    nn::OptimizerOptions optimizer = options;
    optimizer.update = plan_.update;
    Stage stage{planned_.name, 0, static_cast<std::int64_t>(plan_.blocks.size())};
    for (const BlockPlan& planned : plan_.blocks) {
      ++stage.block;
      trace.set_stage(describe(stage));
      LocalBlock block(meta, net.range(planned.first_unit, planned.last_unit),
                       net.input_sample(planned.first_unit), optimizer, 0);
      block.train({.size = planned.batch,
                   .sample = block.sample_shape(),
                   .format = planned.first_unit == 0 ? plan_.format : std::nullopt},
                  {});
    }
  }

  void run(const MethodRun& run, MethodSummary& summary) const override {
    const LocalNet net(model_, *rule_, plan_);
    LocalTrainingOptions training = run.training;
    training.method = planned_.name;
    training.optimizer.update = plan_.update;
    training.deliver_whole_net = plan_.partition == to_string(PartitionRule::whole);
    const LocalResult result = train_locally(Context::create(run.device), net, plan_, run.data,
                                             training, run.observer, run.continuation);
    summary.total_seconds = *summary.plan_seconds + run.elapsed_seconds();
    summarise(result, run.data, summary);
    const std::int64_t unit = result.exits[result.chosen].unit;
    const SavedNet saved = describe_exit(model_, plan_, unit, run.data.transform());
    summary.weights = planned_.name + ".safetensors";
    saved.write(run.folder / summary.weights, exit_weights(net, result.weights, unit));
    // For export_exit; described by the last of them, which all units lead to.
    describe_exit(model_, plan_, result.exits.back().unit, run.data.transform())
        .write(run.folder / exits_file(planned_.name), result.weights);
    ExitNet exit(net, unit);
    measure_speed(run, exit, summary);
    measure_exits(run, net, summary);
  }

 private:
  static void measure_exits(const MethodRun& run, const LocalNet& net, MethodSummary& summary) {
    for (ExitSummary& exit : summary.exits)
      if (exit.unit == *summary.exit_unit) {
        exit.inference_images_per_second = summary.inference_images_per_second;
      } else if (run.device.device.kind != DeviceKind::simt) {  // where speed means nothing
        ExitNet other(net, exit.unit - 1);
        exit.inference_images_per_second = measure_exit_speed(run, other);
      }
  }
  static void summarise(const LocalResult& result, const nn::TrainingData& data,
                        MethodSummary& summary) {
    summary.batches.clear();
    // What is filled is what a next block was trained from; two generations lie there at a time.
    summary.cache_bytes = 0;
    std::int64_t before = 0;
    for (std::size_t i = 0; i < summary.blocks.size(); ++i) {
      std::int64_t& written = summary.blocks[i].cache_bytes;
      if (i + 1 >= result.blocks.size()) written = 0;
      summary.cache_bytes = std::max(*summary.cache_bytes, before + written);
      before = written;
    }
    for (std::size_t i = 0; i < result.blocks.size(); ++i) {
      const BlockResult& block = result.blocks[i];
      BlockSummary& described = summary.blocks[i];
      described.measured_peak_bytes = block.measured_peak_bytes;
      described.train_seconds = block.train_seconds;
      described.evaluation_seconds = block.evaluation_seconds;
      described.evaluation_wait_seconds = block.evaluation_wait_seconds;
      described.cache_seconds = block.cache_seconds;
      described.cache_wait_seconds = block.cache_wait_seconds;
      described.fill_wait_seconds = block.fill_wait_seconds;
      described.cache_host_bytes = block.cache_host_bytes;
      summary.batches.push_back(block.plan.batch);
    }
    for (const ExitResult& exit : result.exits)
      summary.exits.push_back(
          {exit.unit + 1, exit.parameters, exit.flops, exit.validation_accuracy, {}});
    const ExitResult& chosen = result.exits[result.chosen];
    summary.exit_unit = chosen.unit + 1;
    summary.stopped_early = result.stopped_early;
    summary.predicted_peak_bytes = result.predicted_peak_bytes;
    summary.measured_peak_bytes = result.measured_peak_bytes;
    summary.train_seconds = result.train_seconds;
    summary.evaluation_seconds = result.evaluation_seconds;
    if (data.validation_count() > 0) summary.validation_accuracy = chosen.validation_accuracy;
    if (data.test_count() > 0) summary.test_accuracy = result.test_accuracy;
    summary.parameters = chosen.parameters;
    summary.flops = chosen.flops;
  }

  std::unique_ptr<nn::Model> model_holder_;
  nn::Model& model_;
  std::shared_ptr<const AuxiliaryRule> rule_;
  Plan plan_;
};

}  // namespace

std::unique_ptr<Method> plan_local(const MethodInput& input) {
  const PlanTimer timer(input.times);
  std::shared_ptr<const AuxiliaryRule> rule = make_auxiliary_rule("classic");
  PlanOptions options = input.plan;
  options.partition = PartitionRule::whole;
  std::unique_ptr<nn::Model> model = copy_model(input.model);
  Plan plan = make_plan(*model, *rule, options, input.options.device, input.times);
  return std::make_unique<LocalMethod>("local", std::move(model), std::move(rule), std::move(plan),
                                       timer.seconds());
}

std::unique_ptr<Method> plan_neuroflux(const MethodInput& input) {
  const PlanTimer timer(input.times);
  const std::filesystem::path& file = input.options.plan_file;
  std::shared_ptr<const AuxiliaryRule> rule =
      make_auxiliary_rule(file.empty() ? input.options.auxiliary : read_plan_rule(file));
  std::unique_ptr<nn::Model> model = copy_model(input.model);
  model = file.empty() ? join_units_that_fit(std::move(model), input.options.units, *rule,
                                             input.plan, input.options.device)
                       : nn::join_units(std::move(model), read_plan_units(file, input.model));
  Plan plan = plan_or_read(input, *model, *rule);
  // Under the least budget no units are joined; in a single block all are there all the same.
  if (file.empty() && model->unit_count() < input.model.unit_count() &&
      input.plan.partition != PartitionRule::whole)
    plan.minimum_budget = least_unit_budget(input.model, *rule, input.plan, input.options.device);
  return std::make_unique<LocalMethod>("neuroflux", std::move(model), std::move(rule),
                                       std::move(plan), timer.seconds());
}

}  // namespace nf
