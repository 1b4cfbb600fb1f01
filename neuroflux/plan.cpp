#include "neuroflux/plan.h"

#include <algorithm>
#include <cmath>

#include "neuroflux/cache_manifest.h"
#include "neuroflux/local_net.h"

namespace nf {
namespace {

// Feasible batches are compared beyond the batch wanted, else all cheap units would look alike.
constexpr std::int64_t kFeasibleFactor = 16;

class Planner {
 public:
  Planner(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
          const ContextOptions& target)
      : model_(model), rule_(rule), options_(options), profiler_(target, options.optimizer) {}

  Plan make() {
    plan_.budget = options_.budget;
    plan_.batch = options_.batch;
    plan_.auxiliary_rule = rule_.name();
    plan_.full_parameters = model_.parameter_count();
    plan_units();
    plan_.fits = std::all_of(plan_.units.begin(), plan_.units.end(),
                             [](const UnitPlan& unit) { return unit.feasible_batch > 0; });
    if (plan_.fits) partition();
    return std::move(plan_);
  }

 private:
  Workload workload(std::int64_t batch, bool fills_cache) const {
    return {batch, options_.train_count, {options_.validation_count}, fills_cache};
  }

  std::int64_t unit_peak(const LocalUnit& unit, std::int64_t index, std::int64_t batch) {
    const bool fills_cache = index + 1 < model_.unit_count();
    return profiler_.block_peak({unit}, model_.unit_input_shape(index, 1).sample(),
                                workload(batch, fills_cache));
  }

  std::int64_t feasible_batch(const LocalUnit& unit, std::int64_t index) {
    const std::int64_t limit = std::min(kFeasibleFactor * options_.batch, options_.train_count);
    return largest_batch(limit, options_.budget,
                         [&](std::int64_t batch) { return unit_peak(unit, index, batch); });
  }

  void plan_units() {
    std::int64_t parameters = 0, flops = 0;
    for (std::int64_t i = 0; i < model_.unit_count(); ++i) {
      nn::Unit& unit = model_.unit(i);
      const Shape input = model_.unit_input_shape(i, 1);
      const Shape output = model_.unit_input_shape(i + 1, 1);
      UnitPlan planned;
      planned.name = unit.name();
      planned.output = output.sample();
      planned.parameters = unit.parameter_count();
      planned.flops = unit.flops(input);
      std::unique_ptr<nn::Module> auxiliary;
      if (i + 1 < model_.unit_count()) auxiliary = choose_auxiliary(i, planned);
      nn::Module& classifier = auxiliary ? *auxiliary : model_.head();
      const LocalUnit local{unit.name(), &unit, &classifier};
      if (!auxiliary) {
        planned.minimum_budget = unit_peak(local, i, 1);
        planned.feasible_batch = feasible_batch(local, i);
      }
      planned.auxiliary_parameters = classifier.parameter_count();
      planned.auxiliary_flops = classifier.flops(output);
      parameters += planned.parameters;
      flops += planned.flops;
      planned.exit_parameters = parameters + planned.auxiliary_parameters;
      planned.exit_flops = flops + planned.auxiliary_flops;
      plan_.minimum_budget = std::max(plan_.minimum_budget, planned.minimum_budget);
      plan_.units.push_back(std::move(planned));
    }
  }

  // The largest width that leaves the batch wanted, else the one with the largest feasible batch.
  std::unique_ptr<nn::Module> choose_auxiliary(std::int64_t index, UnitPlan& planned) {
    nn::Unit& unit = model_.unit(index);
    const std::vector<std::int64_t> widths = rule_.widths(model_.unit_input_shape(index + 1, 1));
    NF_CHECK(!widths.empty(), "auxiliary rule {}: no width for unit {}", rule_.name(), unit.name());
    const std::int64_t wanted = std::min(options_.batch, options_.train_count);
    std::unique_ptr<nn::Module> best;
    for (auto width = widths.rbegin(); width != widths.rend(); ++width) {
      std::unique_ptr<nn::Module> auxiliary = make_auxiliary(model_, rule_, index, *width);
      const LocalUnit local{unit.name(), &unit, auxiliary.get()};
      const std::int64_t smallest = unit_peak(local, index, 1);
      planned.minimum_budget = best ? std::min(planned.minimum_budget, smallest) : smallest;
      const bool enough = unit_peak(local, index, wanted) <= options_.budget;
      const std::int64_t feasible = feasible_batch(local, index);
      if (best && feasible <= planned.feasible_batch && !enough) continue;
      planned.feasible_batch = feasible;
      planned.auxiliary_width = *width;
      best = std::move(auxiliary);
      if (enough) break;
    }
    // The least budget counts the cheapest width even where a wider one fits.
    if (planned.auxiliary_width != widths.front()) {
      std::unique_ptr<nn::Module> cheapest = make_auxiliary(model_, rule_, index, widths.front());
      planned.minimum_budget = std::min(planned.minimum_budget,
                                        unit_peak({unit.name(), &unit, cheapest.get()}, index, 1));
    }
    return best;
  }

  // The rule `homogeneous`: a unit joins while its feasible batch is like the block's first one's,
  // and while the block's own peak leaves about the batch that its members would have alone.
  void partition() {
    std::vector<std::int64_t> widths;
    for (const UnitPlan& unit : plan_.units) widths.push_back(unit.auxiliary_width);
    const LocalNet net(model_, rule_, widths);
    std::int64_t first = 0;
    while (first < model_.unit_count()) {
      BlockPlan block = fit_block(net, first, first);
      while (block.last_unit + 1 < model_.unit_count()) {
        const std::int64_t candidate = block.last_unit + 1;
        if (!alike(first, candidate)) break;
        const BlockPlan larger = fit_block(net, first, candidate);
        const auto alone = static_cast<double>(members_batch(first, candidate));
        if (larger.batch < 1) break;  // together they fit at no batch, whatever rho allows
        if (static_cast<double>(larger.batch) < (1.0 - options_.rho) * alone) break;
        block = larger;
      }
      plan_.blocks.push_back(block);
      first = block.last_unit + 1;
    }
    std::int64_t previous = 0;
    for (const BlockPlan& block : plan_.blocks) {
      plan_.predicted_peak_bytes = std::max(plan_.predicted_peak_bytes, block.predicted_peak_bytes);
      plan_.cache_bytes = std::max(plan_.cache_bytes, previous + block.cache_bytes);
      previous = block.cache_bytes;
    }
  }

  bool alike(std::int64_t first, std::int64_t candidate) const {
    const auto a = static_cast<double>(unit_plan(first).feasible_batch);
    const auto b = static_cast<double>(unit_plan(candidate).feasible_batch);
    return std::abs(a - b) <= options_.rho * a;
  }

  std::int64_t members_batch(std::int64_t first, std::int64_t last) const {
    std::int64_t batch = options_.batch;
    for (std::int64_t i = first; i <= last; ++i)
      batch = std::min(batch, unit_plan(i).feasible_batch);
    return batch;
  }

  BlockPlan fit_block(const LocalNet& net, std::int64_t first, std::int64_t last) {
    const bool fills_cache = last + 1 < model_.unit_count();
    const std::vector<LocalUnit> units = net.range(first, last);
    const auto peak = [&](std::int64_t batch) {
      return profiler_.block_peak(units, net.input_sample(first), workload(batch, fills_cache));
    };
    BlockPlan block{first, last, 0, 0, 0};
    const std::int64_t members = members_batch(first, last);
    block.predicted_peak_bytes = peak(members);
    block.batch = block.predicted_peak_bytes <= options_.budget
                      ? members
                      : largest_batch(members, options_.budget, peak);
    if (block.batch > 0) block.predicted_peak_bytes = peak(block.batch);
    if (fills_cache) block.cache_bytes = generation_bytes(last);
    return block;
  }

  std::int64_t generation_bytes(std::int64_t last_unit) const {
    CacheSpec spec;
    spec.sample_shape = unit_plan(last_unit).output;
    spec.dtype = options_.cache_dtype;
    std::int64_t bytes = 0;
    for (const auto& [name, count] : {std::pair{"train", options_.train_count},
                                      std::pair{"validation", options_.validation_count}}) {
      if (count == 0) continue;
      spec.name = name;
      spec.count = count;
      bytes += cache_bytes(spec);
    }
    return bytes;
  }

  const UnitPlan& unit_plan(std::int64_t i) const {
    return plan_.units[static_cast<std::size_t>(i)];
  }

  nn::Model& model_;
  const AuxiliaryRule& rule_;
  PlanOptions options_;
  MemoryProfiler profiler_;
  Plan plan_;
};

}  // namespace

void check_plan_options(const PlanOptions& options) {
  NF_CHECK(options.budget >= 1, "plan: the budget must be at least 1 byte, got {}", options.budget);
  NF_CHECK(options.batch >= 1 && options.batch <= kMaxBatch,
           "plan: the batch must be in [1, {}], got {}", kMaxBatch, options.batch);
  NF_CHECK(options.rho >= 0.0 && options.rho <= 1.0, "plan: rho must be in [0, 1], got {}",
           options.rho);
  NF_CHECK(options.train_count >= 1, "plan: the training set must have at least 1 image, got {}",
           options.train_count);
  NF_CHECK(options.validation_count >= 0, "plan: the validation set can't have {} images",
           options.validation_count);
  NF_CHECK(options.test_count >= 0, "plan: the test set can't have {} images", options.test_count);
  nn::check_optimizer_options(options.optimizer);
}

Plan make_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
               const ContextOptions& target) {
  check_plan_options(options);
  return Planner(model, rule, options, target).make();
}

BpPlan make_bp_plan(nn::Model& model, const PlanOptions& options, const ContextOptions& target) {
  check_plan_options(options);
  MemoryProfiler profiler(target, options.optimizer);
  const auto peak = [&](std::int64_t batch) {
    return profiler.bp_peak(
        model, {batch, options.train_count, {options.validation_count, options.test_count}, false});
  };
  BpPlan plan;
  plan.minimum_budget = peak(1);
  plan.batch = largest_batch(std::min(options.batch, options.train_count), options.budget, peak);
  plan.fits = plan.batch > 0;
  if (plan.fits) plan.predicted_peak_bytes = peak(plan.batch);
  return plan;
}

}  // namespace nf
