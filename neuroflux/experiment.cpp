#include "neuroflux/experiment.h"

#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/text.h"
#include "engine/timer.h"
#include "neuroflux/activation_cache.h"
#include "neuroflux/saved_net.h"
#include "nn/bp_trainer.h"

namespace fs = std::filesystem;

namespace nf {
namespace {

using nlohmann::json;

// One line of JSON per epoch, complete as soon as it is written.
class MetricsLog {
 public:
  explicit MetricsLog(const fs::path& path) : path_(path), out_(path) {
    NF_CHECK(out_.good(), "metrics: can't write {}", path_.string());
  }

  void add(const Stage& stage, const nn::EpochMetrics& metrics) {
    json outputs = json::array();
    for (const nn::OutputMetrics& output : metrics.outputs)
      outputs.push_back({{"name", output.name},
                         {"train_loss", output.train_loss},
                         {"train_accuracy", output.train_accuracy},
                         {"validation_loss", output.validation_loss},
                         {"validation_accuracy", output.validation_accuracy}});
    const json line{{"method", stage.method},
                    {"block", stage.block},
                    {"epoch", metrics.epoch},
                    {"learning_rate", metrics.learning_rate},
                    {"train_seconds", metrics.train_seconds},
                    {"evaluation_seconds", metrics.evaluation_seconds},
                    {"images_per_second", metrics.images_per_second},
                    {"outputs", outputs}};
    out_ << line << std::endl;
    NF_CHECK(out_.good(), "metrics: writing {} failed", path_.string());
  }

 private:
  fs::path path_;
  std::ofstream out_;
};

class Experiment {
 public:
  Experiment(const ExperimentOptions& options, ExperimentPlan plan, const nn::TrainingData& data,
             const TrainingObserver& observer)
      : options_(options), data_(data), observer_(observer), plan_(std::move(plan)) {
    device_ = options.device;
    device_.budget = plan_.summary.budget_bytes;
    training_ = options.training;
    std::error_code status;
    fs::create_directories(options.run_folder, status);
    NF_CHECK(!status, "run folder: can't make {}: {}", options.run_folder.string(),
             status.message());
    choose_cache_folder();
    if (!options.config_text.empty()) write("config.toml", options.config_text);
    write("plan.json", to_json(plan_).dump(2) + "\n");
    metrics_.emplace(options.run_folder / "metrics.jsonl");
    observer_.on_epoch = [this, report = observer.on_epoch](const Stage& stage,
                                                            const nn::EpochMetrics& metrics) {
      metrics_->add(stage, metrics);
      if (report) report(stage, metrics);
    };
    if (!options.trace.empty()) observer_.trace = &trace_;
  }

  Summary run() {
    std::vector<MethodSummary>& methods = plan_.summary.methods;
    for (std::size_t i = 0; i < methods.size(); ++i) {
      if (!methods[i].fits) continue;
      try {
        if (methods[i].name == "bp")
          run_bp(methods[i]);
        else
          run_neuroflux(methods[i]);
      } catch (const std::exception& error) {
        // What other methods took hours for must not be lost with this one.
        methods[i].error = error.what();
        for (std::size_t later = i + 1; later < methods.size(); ++later)
          if (methods[later].fits) methods[later].error = "not begun";
        write_summary();
        throw;
      }
    }
    write_summary();
    if (!options_.trace.empty()) trace_.write(options_.trace);
    return plan_.summary;
  }

 private:
  // A folder that the user names may be shared by many runs. Storage that won't do is refused now,
  // not when other methods have been trained.
  void choose_cache_folder() {
    const bool own = training_.cache_folder.empty();
    if (own)
      training_.cache_folder = options_.run_folder / "cache";
    else
      training_.cache_folder /= unique_name();
    if (plan_.plan.fits && plan_.plan.blocks.size() > 1)
      check_cache_folder(training_.cache_folder, plan_.plan.cache_bytes);
  }

  static std::string unique_name() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return fmt::format("neuroflux-{}-{}", getpid(),
                       std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  }

  void write_summary() const { write("summary.json", to_json(plan_.summary).dump(2) + "\n"); }

  void write(const char* name, const std::string& text) const {
    replace_file(options_.run_folder / name, text);
  }

  SavedNet saved_net(std::int64_t exit_unit) const {
    SavedNet saved;
    saved.model = plan_.model->name();
    saved.options = plan_.model->options();
    saved.transform = data_.transform();
    saved.exit_unit = exit_unit;
    if (exit_unit == 0) return saved;
    saved.auxiliary_rule = plan_.rule->name();
    for (const UnitPlan& unit : plan_.plan.units)
      saved.auxiliary_widths.push_back(unit.auxiliary_width);
    return saved;
  }

  void measure_speed(MethodSummary& method, nn::Module& net) const {
    const InferenceSpeed speed = measure_inference(net, plan_.model->options().input, device_,
                                                   std::min(options_.batch, data_.train_count()));
    if (speed.batch == 0) return;
    method.inference_images_per_second = speed.images_per_second;
    method.inference_batch = speed.batch;
  }

  void run_bp(MethodSummary& method) {
    const Stage stage{"bp", 0, 0};
    const std::int64_t batch = plan_.bp.batch;
    nn::StateDict weights;
    {
      const ContextPtr context = Context::create(device_);
      Pool& pool = context->pool();
      TraceScope trace(pool, observer_.trace);
      if (observer_.trace != nullptr) observer_.trace->set_stage(describe(stage));
      nn::BpTrainer trainer(context, *plan_.model, scaled_optimizer(training_, batch),
                            training_.seed);
      const std::unique_ptr<nn::Loader> train = data_.train(), validation = data_.validation(),
                                        test = data_.test();
      nn::FitObserver fit_observer;
      fit_observer.on_step = [&](const nn::StepProgress& progress) {
        trace.end();
        if (observer_.on_step) observer_.on_step(stage, progress);
      };
      fit_observer.on_epoch = [&](const nn::EpochMetrics& metrics) {
        observer_.on_epoch(stage, metrics);
      };
      fit_observer.on_evaluated = [&] {
        if (observer_.on_batch) observer_.on_batch(stage);
      };
      nn::FitOptions fit = fit_options(training_, batch, data_.train_count());
      fit.name = describe(stage);
      const nn::FitResult fitted =
          nn::fit(trainer, *train, data_.validation_count() > 0 ? validation.get() : nullptr, fit,
                  fit_observer);
      const Timer timer;
      if (data_.test_count() > 0)
        method.test_accuracy = nn::evaluate(trainer, *test, batch, fit_observer.on_evaluated)
                                   .front()
                                   .validation_accuracy;
      method.evaluation_seconds = fitted.evaluation_seconds + timer.seconds();
      method.train_seconds = fitted.train_seconds;
      if (data_.validation_count() > 0)
        method.validation_accuracy = fitted.epochs.back().outputs.front().validation_accuracy;
      method.measured_peak_bytes = pool.stats().peak_reserved;
      plan_.model->save(weights);
    }
    method.plan_seconds = plan_.bp_seconds;
    method.total_seconds =
        *method.plan_seconds + *method.train_seconds + *method.evaluation_seconds;
    method.weights = "bp.safetensors";
    saved_net(0).write(options_.run_folder / method.weights, weights);
    measure_speed(method, *plan_.model);
  }

  void run_neuroflux(MethodSummary& method) {
    const LocalNet net(*plan_.model, *plan_.rule, plan_.plan);
    const LocalResult result =
        train_locally(Context::create(device_), net, plan_.plan, data_, training_, observer_);
    const ExitResult& chosen = result.exits[result.chosen];
    method.batches.clear();
    for (std::size_t i = 0; i < result.blocks.size(); ++i) {
      const BlockResult& block = result.blocks[i];
      BlockSummary& summary = method.blocks[i];
      summary.measured_peak_bytes = block.measured_peak_bytes;
      summary.train_seconds = block.train_seconds;
      summary.cache_seconds = block.cache_seconds;
      summary.cache_wait_seconds = block.cache_wait_seconds;
      method.batches.push_back(block.plan.batch);
    }
    for (const ExitResult& exit : result.exits)
      method.exits.push_back(
          {exit.unit + 1, exit.parameters, exit.flops, exit.validation_accuracy});
    method.exit_unit = chosen.unit + 1;
    method.stopped_early = result.stopped_early;
    method.predicted_peak_bytes = result.predicted_peak_bytes;
    method.measured_peak_bytes = result.measured_peak_bytes;
    method.train_seconds = result.train_seconds;
    method.evaluation_seconds = result.evaluation_seconds;
    method.plan_seconds = plan_.neuroflux_seconds;
    method.total_seconds = *method.plan_seconds + result.train_seconds + result.evaluation_seconds;
    if (data_.validation_count() > 0) method.validation_accuracy = chosen.validation_accuracy;
    if (data_.test_count() > 0) method.test_accuracy = result.test_accuracy;
    method.parameters = chosen.parameters;
    method.flops = chosen.flops;
    method.weights = "neuroflux.safetensors";
    saved_net(chosen.unit + 1)
        .write(options_.run_folder / method.weights,
               exit_weights(net, result.weights, chosen.unit));
    ExitNet exit(net, chosen.unit);
    measure_speed(method, exit);
  }

  const ExperimentOptions& options_;
  const nn::TrainingData& data_;
  TrainingObserver observer_;
  ExperimentPlan plan_;
  ContextOptions device_;
  LocalTrainingOptions training_;
  std::optional<MetricsLog> metrics_;
  MemoryTrace trace_;
};

}  // namespace

nn::TrainingData load_data(const ExperimentOptions& options) {
  if (options.data != "generated") return nn::load_idx_folder(options.data, options.data_options);
  return {nn::generate_images(options.generated),
          nn::generate_images(generated_test_set(options.generated)), options.data_options};
}

nn::GeneratedOptions generated_test_set(const nn::GeneratedOptions& train) {
  nn::GeneratedOptions test = train;
  test.count = std::max<std::int64_t>(1, train.count / 5);
  test.stream = train.stream + 1;
  return test;
}

Summary run_experiment(const ExperimentOptions& options, ExperimentPlan plan,
                       const nn::TrainingData& data, const TrainingObserver& observer) {
  return Experiment(options, std::move(plan), data, observer).run();
}

}  // namespace nf
