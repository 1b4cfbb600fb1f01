#include "neuroflux/experiment.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/gpu_energy.h"
#include "engine/text.h"
#include "engine/timer.h"
#include "neuroflux/cache_plan.h"
#include "neuroflux/checkpoint.h"
#include "neuroflux/checksum.h"
#include "neuroflux/energy.h"
#include "neuroflux/metrics_log.h"
#include "neuroflux/provenance.h"

namespace fs = std::filesystem;

namespace nf {
namespace {

using nlohmann::json;

// What must be the same for a run to go on: all of a plan but what its making took.
std::string fingerprint(const ExperimentPlan& plan) {
  json document = to_json(plan);
  document.erase("context_bytes");
  for (json& method : document["methods"]) method.erase("plan_seconds");
  return to_hex(hash_text(document.dump()));
}

// All else that the values of the rest of a run hang on, and where it ends.
std::string training_key(const ExperimentOptions& options, const nn::TrainingData& data) {
  const LocalTrainingOptions& training = options.training;
  const std::string text =
      training_text(training, data) +
      fmt::format("; {} {} {} {} {} {}; {} {}", options.dropout, training.stop_when_saturated,
                  training.patience, training.improvement, training.exit_tolerance,
                  training.exit_accuracy, options.device.tf32, options.device.onednn);
  return to_hex(hash_text(text));
}

class Experiment {
 public:
  Experiment(const ExperimentOptions& options, ExperimentPlan plan, const nn::TrainingData& data,
             const TrainingObserver& observer)
      : options_(options), data_(data), observer_(observer), plan_(std::move(plan)) {
    begun_.plan = fingerprint(plan_);
    begun_.training = training_key(options, data);
    begun_.data = to_hex(data_hash(data));
    device_ = options.device;
    device_.budget = plan_.summary.budget_bytes;
    training_ = options.training;
    std::error_code status;
    fs::create_directories(options.run_folder, status);
    NF_CHECK(!status, "run folder: can't make {}: {}", options.run_folder.string(),
             status.message());
    if (options.resume) read_progress();
    choose_cache_folder();
    if (!progress_) {
      if (!options.config_text.empty()) write("config.toml", options.config_text);
      write("plan.json", to_json(plan_).dump(2) + "\n");
    }
    metrics_.emplace(options.run_folder / "metrics.jsonl",
                     progress_ ? progress_->metrics_bytes : 0);
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
    std::size_t first = 0;
    if (progress_) {
      std::ranges::copy(progress_->methods, methods.begin());
      first = progress_->methods.size() - (progress_->state ? 1 : 0);
    }
    for (std::size_t i = first; i < methods.size(); ++i) {
      if (!methods[i].fits) continue;
      try {
        run_method(i, progress_ && progress_->state && i == first);
      } catch (const Diverged& diverged) {
        record_divergence(i, diverged);
      } catch (const std::exception& error) {
        // What other methods took hours for must not be lost with this one.
        methods[i].error = error.what();
        for (std::size_t later = i + 1; later < methods.size(); ++later)
          if (methods[later].fits) methods[later].error = "not begun";
        write_summary_if_possible();
        throw;
      }
    }
    compare_with_bp(plan_.summary);
    write_summary();
    remove_checkpoint(options_.run_folder);
    if (!options_.trace.empty()) trace_.write(options_.trace);
    return plan_.summary;
  }

 private:
  void run_method(std::size_t i, bool go_on) {
    MethodSummary& method = plan_.summary.methods[i];
    method_ = &method;
    timer_ = Timer();
    energy_ = energy_meter();
    elapsed_before_ = go_on ? progress_->elapsed_seconds : 0.0;
    joules_before_ = go_on ? progress_->energy_joules.value_or(0.0) : 0.0;
    MethodRun input{data_, training_, observer_, device_, options_.run_folder, options_.batch};
    input.timer = timer_;
    input.earlier_seconds = elapsed_before_;
    if (go_on) input.continuation.from = &*progress_->state;
    if (options_.checkpoints)
      input.continuation.save = [this, i](const TrainingState& state) { save(i, &state); };
    want_exit_near_bp(method);
    plan_.methods[i]->run(input, method);
    tell_of_unmet_wish(method);
    method.energy_joules = joules();
    if (options_.checkpoints) save(i, nullptr);
  }

  // From bp's figures alone, so that a run that goes on wants the same.
  void want_exit_near_bp(MethodSummary& method) {
    training_.delivered_accuracy = 0.0;
    if (!options_.exit_within_bp || method.name != "neuroflux") return;
    constexpr double kRounding = 1e-9;  // an exit exactly that far below counts
    for (const MethodSummary& other : plan_.summary.methods)
      if (other.name == "bp" && other.validation_accuracy)
        method.wanted_exit_accuracy = std::max(
            *other.validation_accuracy - *options_.exit_within_bp / 100.0 - kRounding, kRounding);
    training_.delivered_accuracy = method.wanted_exit_accuracy.value_or(0.0);
  }

  void tell_of_unmet_wish(const MethodSummary& method) const {
    if (!options_.exit_within_bp || method.name != "neuroflux" || !observer_.on_message) return;
    if (!method.wanted_exit_accuracy)
      observer_.on_message("neuroflux: bp has no accuracy, so the exit is chosen without");
    else if (lacks_wanted_exit(method))
      observer_.on_message(fmt::format(
          "neuroflux: no exit is within {} points of bp's validation accuracy, so it is chosen "
          "without that",
          *options_.exit_within_bp));
  }

  // The other methods have no part in it. One that is alone says so as the run ends.
  void record_divergence(std::size_t i, const Diverged& diverged) {
    MethodSummary& method = plan_.summary.methods[i];
    method.error = diverged.what();
    method.diverged = true;
    method.energy_joules = joules();
    if (options_.checkpoints) save(i, nullptr);
    if (observer_.on_message && plan_.summary.methods.size() > 1)
      observer_.on_message(fmt::format("{} diverged: {}", method.name, method.error));
  }

  // Throws DataError for a file that is damaged, Error for one that is another plan's.
  void read_progress() {
    std::vector<const Plan*> plans;
    for (const auto& method : plan_.methods) plans.push_back(method->local_plan());
    progress_ = read_checkpoint(options_.run_folder, plans);
    if (!progress_) return;
    const std::string file = checkpoint_file(options_.run_folder).string();
    NF_CHECK(progress_->plan == begun_.plan,
             "{}: the run was begun by another plan than these options, data and program make; "
             "plan.json there tells which",
             file);
    NF_CHECK(progress_->training == begun_.training,
             "{}: the run was begun with another learning rate, schedule, seed or the like; "
             "config.toml there may have been changed",
             file);
    NF_CHECK(progress_->data == begun_.data,
             "{}: the run was begun with other images or labels than the data set has now", file);
  }

  // A run can do without a checkpoint, but not the next one without the last.
  void save(std::size_t i, const TrainingState* state) {
    Progress checkpoint = begun_;
    const std::vector<MethodSummary>& methods = plan_.summary.methods;
    checkpoint.methods.assign(methods.begin(),
                              methods.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    // The run folder's own goes where that goes.
    if (!options_.training.cache_folder.empty())
      checkpoint.cache_folder = fs::absolute(training_.cache_folder);
    checkpoint.metrics_bytes = metrics_->bytes();
    checkpoint.elapsed_seconds = elapsed_before_ + timer_.seconds();
    checkpoint.energy_joules = joules();
    try {
      // After a power cut the checkpoint must not count on lines that never got to storage.
      metrics_->sync();
      write_checkpoint(options_.run_folder, checkpoint, state);
    } catch (const Error& error) {
      if (observer_.on_message)
        observer_.on_message(fmt::format("no checkpoint of this epoch: {}", error.what()));
    }
  }

  EnergyMeter energy_meter() const {
    const Device device = options_.device.device;
    if (device.kind != DeviceKind::cuda) return EnergyMeter();
    return EnergyMeter([device] { return cuda_joules(device.index); });
  }

  std::optional<double> joules() {
    const std::optional<double> now = energy_.joules();
    return now ? std::optional(joules_before_ + *now) : std::nullopt;
  }

  void record(const nn::EpochMetrics& metrics) {
    const double before = method_->history.empty() ? 0.0 : method_->history.back().train_seconds;
    AccuracyPoint point{method_->plan_seconds.value_or(0.0) + elapsed_before_ + timer_.seconds(),
                        before + metrics.train_seconds, 0.0};
    for (const nn::OutputMetrics& output : metrics.outputs)
      point.validation_accuracy = std::max(point.validation_accuracy, output.validation_accuracy);
    method_->history.push_back(point);
    energy_.joules();  // often enough for counters that wrap around
  }

  // A folder that the user names may be shared by many runs. Storage that won't do is refused now,
  // not when other methods have been trained.
  void choose_cache_folder() {
    if (progress_ && !progress_->cache_folder.empty())
      training_.cache_folder = progress_->cache_folder;
    else if (training_.cache_folder.empty())
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

  // After a failure: a disk that is full must not hide what else went wrong.
  void write_summary_if_possible() const noexcept {
    try {
      write_summary();
    } catch (const std::exception&) {
    }
  }

  void write(const char* name, const std::string& text) const {
    replace_file(options_.run_folder / name, text);
  }

  const ExperimentOptions& options_;
  const nn::TrainingData& data_;
  TrainingObserver observer_;
  ExperimentPlan plan_;
  Progress begun_;                      // what is the same in all of the run's checkpoints
  std::optional<Checkpoint> progress_;  // of the run that was cut off
  ContextOptions device_;
  LocalTrainingOptions training_;
  std::optional<MetricsLog> metrics_;
  MemoryTrace trace_;
  MethodSummary* method_ = nullptr;  // the one that runs
  Timer timer_;
  EnergyMeter energy_;
  double elapsed_before_ = 0.0, joules_before_ = 0.0;
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
