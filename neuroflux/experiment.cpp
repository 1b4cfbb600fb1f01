#include "neuroflux/experiment.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/text.h"
#include "engine/timer.h"
#include "neuroflux/cache_plan.h"
#include "neuroflux/energy.h"

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

  void add(const Stage& stage, const nn::EpochMetrics& metrics, double elapsed_seconds) {
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
                    {"elapsed_seconds", elapsed_seconds},
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
      record(metrics);
      metrics_->add(stage, metrics, method_->history.back().elapsed_seconds);
      if (report) report(stage, metrics);
    };
    if (!options.trace.empty()) observer_.trace = &trace_;
  }

  Summary run() {
    std::vector<MethodSummary>& methods = plan_.summary.methods;
    const MethodRun input{data_,   training_,           observer_,
                          device_, options_.run_folder, options_.batch};
    for (std::size_t i = 0; i < methods.size(); ++i) {
      if (!methods[i].fits) continue;
      try {
        begin(methods[i]);
        plan_.methods[i]->run(input, methods[i]);
        methods[i].energy_joules = energy_.joules();
      } catch (const std::exception& error) {
        // What other methods took hours for must not be lost with this one.
        methods[i].error = error.what();
        for (std::size_t later = i + 1; later < methods.size(); ++later)
          if (methods[later].fits) methods[later].error = "not begun";
        write_summary();
        throw;
      }
    }
    compare_with_bp(plan_.summary);
    write_summary();
    if (!options_.trace.empty()) trace_.write(options_.trace);
    return plan_.summary;
  }

 private:
  void begin(MethodSummary& method) {
    method_ = &method;
    timer_ = Timer();
    energy_ = EnergyMeter();
  }

  void record(const nn::EpochMetrics& metrics) {
    const double before = method_->history.empty() ? 0.0 : method_->history.back().train_seconds;
    AccuracyPoint point{method_->plan_seconds.value_or(0.0) + timer_.seconds(),
                        before + metrics.train_seconds, 0.0};
    for (const nn::OutputMetrics& output : metrics.outputs)
      point.validation_accuracy = std::max(point.validation_accuracy, output.validation_accuracy);
    method_->history.push_back(point);
    energy_.joules();  // often enough for counters that wrap around
  }

  // A folder that the user names may be shared by many runs. Storage that won't do is refused now,
  // not when other methods have been trained.
  void choose_cache_folder() {
    const bool own = training_.cache_folder.empty();
    if (own)
      training_.cache_folder = options_.run_folder / "cache";
    else
      training_.cache_folder /= unique_name();
    for (const auto& method : plan_.methods) {
      const Plan* plan = method->local_plan();
      if (plan != nullptr && plan->fits) check_caches(*plan, data_, training_);
    }
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

  const ExperimentOptions& options_;
  const nn::TrainingData& data_;
  TrainingObserver observer_;
  ExperimentPlan plan_;
  ContextOptions device_;
  LocalTrainingOptions training_;
  std::optional<MetricsLog> metrics_;
  MemoryTrace trace_;
  MethodSummary* method_ = nullptr;  // the one that runs
  Timer timer_;
  EnergyMeter energy_;
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
