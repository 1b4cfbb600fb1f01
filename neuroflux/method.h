// A way to train a net under a budget: what it would take, and the training itself. Each is a class
// of its own behind plan_method.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/timer.h"
#include "neuroflux/experiment_options.h"
#include "neuroflux/plan.h"
#include "neuroflux/summary.h"

namespace nf {

/// What a method plans with; needed only while it does.
struct MethodInput {
  nn::Model& model;  ///< must outlive the method
  const ExperimentOptions& options;
  PlanOptions plan;
  TimeModel& times;
};

/// What a planned method runs with.
struct MethodRun {
  const nn::TrainingData& data;
  const LocalTrainingOptions& training;  ///< with the cache folder to use
  const TrainingObserver& observer;
  ContextOptions device;             ///< with the budget
  std::filesystem::path folder;      ///< the run folder: weights are left there
  std::int64_t inference_batch = 1;  ///< largest one of the measurement of speed
  Continuation continuation = {};
  Timer timer = {};              ///< since the method's work began in this process
  double earlier_seconds = 0.0;  ///< of it in those that were cut off

  double elapsed_seconds() const { return earlier_seconds + timer.seconds(); }
};

class Method {
 public:
  virtual ~Method() = default;

  /// What is known before anything runs on the device.
  const MethodSummary& planned() const { return planned_; }
  /// How the net is cut and trained by parts; null where the method does not.
  virtual const Plan* local_plan() const { return nullptr; }
  /// Memory events of one step of each part, on a meta context.
  virtual void trace(const ContextPtr& meta, const nn::OptimizerOptions& optimizer,
                     MemoryTrace& trace) const = 0;
  /// Trains, evaluates, writes the weights and completes `summary`, which begins as planned().
  /// Only for a method that fits. Throws Diverged.
  virtual void run(const MethodRun& run, MethodSummary& summary) const = 0;

 protected:
  MethodSummary planned_;
};

/// The methods that can be named in ExperimentOptions::methods, in the order of their tables.
const std::vector<std::string>& method_names();

/// Plans one of them. Throws Error for an unknown name, with the nearest.
std::unique_ptr<Method> plan_method(const std::string& name, const MethodInput& input);

// The methods' own makers, called by plan_method.
std::unique_ptr<Method> plan_bp(const MethodInput& input);
std::unique_ptr<Method> plan_bp_accumulate(const MethodInput& input);
std::unique_ptr<Method> plan_bp_checkpoint(const MethodInput& input);
std::unique_ptr<Method> plan_local(const MethodInput& input);
std::unique_ptr<Method> plan_neuroflux(const MethodInput& input);

/// Times a method's planning. Times that it took from memory count as if they had been measured.
class PlanTimer {
 public:
  explicit PlanTimer(const TimeModel& times) : times_(times), before_(times.replayed_seconds()) {}
  double seconds() const { return timer_.seconds() + times_.replayed_seconds() - before_; }

 private:
  const TimeModel& times_;
  double before_;
  Timer timer_;
};

/// Measures how fast the delivered net infers, and says so in `summary`.
void measure_speed(const MethodRun& run, nn::Module& net, MethodSummary& summary);
/// The same of one of a net's exits that is not delivered, in less time; empty where not even one
/// image fits.
std::optional<double> measure_exit_speed(const MethodRun& run, nn::Module& exit);

}  // namespace nf
