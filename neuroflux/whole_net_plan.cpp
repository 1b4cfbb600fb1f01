#include "neuroflux/whole_net_plan.h"

#include <algorithm>

#include "neuroflux/time_profile.h"
#include "nn/accumulate_trainer.h"
#include "nn/bp_trainer.h"

namespace nf {
namespace {

class Planner {
 public:
  Planner(WholeNetMethod method, nn::Model& model, const PlanOptions& options,
          const ContextOptions& target, TimeModel& times)
      : model_(model),
        options_(options),
        profiler_(target, options.optimizer),
        times_(times),
        wanted_(std::min(options.batch, options.train_count)) {
    plan_.method = method;
  }

  WholeNetPlan make() {
    if (plan_.method == WholeNetMethod::accumulate)
      accumulate();
    else if (plan_.method == WholeNetMethod::checkpoint)
      checkpoint();
    else
      at_once();
    return plan_;
  }

 private:
  Workload workload(std::int64_t batch) const {
    return {batch,
            options_.train_count,
            {options_.validation_count, options_.test_count},
            false,
            options_.format};
  }

  void at_once() {
    const auto peak = [&](std::int64_t batch) {
      return profiler_.bp_peak(model_, workload(batch));
    };
    plan_.minimum_budget = peak(1);
    take_batch(largest_batch(wanted_, options_.budget, peak), peak);
  }

  void accumulate() {
    const auto peak = [&](std::int64_t micro) {
      return profiler_.accumulate_peak(model_, workload(wanted_), micro);
    };
    plan_.minimum_budget = peak(1);
    take_batch(largest_batch(wanted_, options_.budget, peak), peak);
    plan_.micro_batch = plan_.batch;
    if (plan_.fits) plan_.batch = wanted_;
  }

  void checkpoint() {
    const auto peak = [&](std::int64_t batch) {
      return profiler_.checkpoint_peak(model_, workload(batch), plan_.segments);
    };
    const nn::Segments even = nn::sqrt_segments(model_.unit_count());
    // Of one sample: whatever the budget, it takes no less.
    const nn::Segments least = profiler_.least_segments(model_, workload(1));
    plan_.segments = least;
    plan_.minimum_budget = peak(1);
    plan_.segments = even;
    plan_.minimum_budget = std::min(plan_.minimum_budget, peak(1));
    std::int64_t largest = largest_batch(wanted_, options_.budget, peak);
    if (largest < wanted_) {
      plan_.segments = largest > 1 ? profiler_.least_segments(model_, workload(largest)) : least;
      const std::int64_t with_least = largest_batch(wanted_, options_.budget, peak);
      if (with_least > largest)
        largest = with_least;
      else if (largest > 0)
        plan_.segments = even;
    }
    take_batch(largest, peak);
  }

  // The fastest up to the largest that fits, with its peak and time.
  template <typename Peak>
  void take_batch(std::int64_t largest, const Peak& peak) {
    plan_.fits = largest > 0;
    if (!plan_.fits) return;
    const PassTimes passes = times_.whole(model_, plan_.segments, largest);
    plan_.batch = fastest_batch({&passes}, largest, options_.train_count);
    plan_.predicted_peak_bytes = peak(plan_.batch);
    plan_.time = block_time({&passes}, plan_.batch,
                            {options_.epochs, options_.train_count, options_.validation_count}, {});
  }

  nn::Model& model_;
  const PlanOptions& options_;
  MemoryProfiler profiler_;
  TimeModel& times_;
  std::int64_t wanted_;
  WholeNetPlan plan_;
};

}  // namespace

WholeNetPlan make_whole_net_plan(WholeNetMethod method, nn::Model& model,
                                 const PlanOptions& options, const ContextOptions& target,
                                 TimeModel& times) {
  check_plan_options(options);
  return Planner(method, model, options, target, times).make();
}

WholeNetPlan make_bp_plan(nn::Model& model, const PlanOptions& options,
                          const ContextOptions& target) {
  check_plan_options(options);
  const std::unique_ptr<TimeModel> times =
      make_predicted_times(target, options.optimizer, nominal_speed(target));
  return make_whole_net_plan(WholeNetMethod::bp, model, options, target, *times);
}

std::unique_ptr<nn::WholeNetTrainer> make_trainer(const WholeNetPlan& plan,
                                                  const ContextPtr& context, nn::Model& model,
                                                  const nn::OptimizerOptions& optimizer,
                                                  std::uint64_t seed) {
  switch (plan.method) {
    case WholeNetMethod::accumulate:
      return std::make_unique<nn::AccumulateTrainer>(context, model, optimizer, seed,
                                                     plan.micro_batch);
    case WholeNetMethod::checkpoint:
      return std::make_unique<nn::CheckpointTrainer>(context, model, optimizer, seed,
                                                     plan.segments);
    case WholeNetMethod::bp:
      break;
  }
  return std::make_unique<nn::BpTrainer>(context, model, optimizer, seed);
}

}  // namespace nf
