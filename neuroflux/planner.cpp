#include "neuroflux/planner.h"

#include <algorithm>
#include <cmath>

#include "engine/text.h"
#include "neuroflux/cache_manifest.h"

namespace nf {
namespace {

// Feasible batches are compared beyond the batch wanted, else all cheap units would look alike.
constexpr std::int64_t kFeasibleFactor = 16;

}  // namespace

Planner::Planner(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
                 const ContextOptions& target, TimeModel& times)
    : model_(model),
      rule_(rule),
      options_(options),
      profiler_(target, options.optimizer),
      times_(times) {}

void Planner::begin() {
  plan_ = {};
  plan_.budget = options_.budget;
  plan_.batch = options_.batch;
  plan_.auxiliary_rule = rule_.name();
  plan_.cache_views = options_.cache_views;
  plan_.partition = to_string(options_.partition);
  plan_.time_source = times_.source();
  plan_.format = options_.format;
  plan_.update = nn::update_moment(options_.optimizer, nn::UpdateMoment::immediate);
  plan_.full_parameters = model_.parameter_count();
}

Plan Planner::make() {
  begin();
  plan_units();
  plan_.fits = std::all_of(plan_.units.begin(), plan_.units.end(),
                           [](const UnitPlan& unit) { return unit.feasible_batch > 0; });
  make_net();
  if (options_.partition == PartitionRule::whole) {
    plan_.minimum_budget = block_peak({0, model_.unit_count() - 1}, 1);
    plan_.fits = plan_.minimum_budget <= options_.budget;
  }
  if (!plan_.fits) return std::move(plan_);
  time_units();
  for (const UnitRange& range : cut()) add_block(fit_block(range));
  explain();
  return std::move(plan_);
}

Plan Planner::complete(const PlanChoice& choice) {
  begin();
  plan_.partition = "given";
  given_units(choice.widths);
  NF_CHECK(!choice.blocks.empty(), "plan: it has no blocks");
  std::int64_t next = 0;
  for (std::size_t k = 0; k < choice.blocks.size(); ++k) {
    const PlanChoice::Block& block = choice.blocks[k];
    NF_CHECK(block.first_unit == next && block.last_unit >= next &&
                 block.last_unit < model_.unit_count(),
             "plan: block {} has units {}-{}; it must begin with unit {} and end by unit {}", k + 1,
             block.first_unit + 1, block.last_unit + 1, next + 1, model_.unit_count());
    NF_CHECK(block.batch >= 1 && block.batch <= std::min(kMaxBatch, options_.train_count),
             "plan: block {} has batch {}; it must be in [1, {}]", k + 1, block.batch,
             std::min(kMaxBatch, options_.train_count));
    next = block.last_unit + 1;
  }
  NF_CHECK(next == model_.unit_count(), "plan: units {}-{} are in no block", next + 1,
           model_.unit_count());
  std::vector<BlockPlan> blocks;
  for (const PlanChoice::Block& given : choice.blocks) {
    const UnitRange range{given.first_unit, given.last_unit};
    BlockPlan block{range.first, range.last, given.batch};
    block.feasible_batch = given.batch;
    block.predicted_peak_bytes = block_peak(range, given.batch);
    if (block.predicted_peak_bytes > options_.budget)
      throw DoesNotFit(fmt::format(
          "plan: block {} (units {}-{}) at batch {} needs {} bytes ({}), the budget is {} bytes",
          blocks.size() + 1, range.first + 1, range.last + 1, given.batch,
          block.predicted_peak_bytes, format_bytes_up(block.predicted_peak_bytes),
          options_.budget));
    if (!last(range.last)) block.cache_bytes = cached_bytes(range.last, true);
    for (std::int64_t i = range.first; i <= range.last; ++i)
      unit_plan(i).feasible_batch = std::max(unit_plan(i).feasible_batch, given.batch);
    blocks.push_back(block);
  }
  plan_.fits = true;
  time_units();
  for (BlockPlan& block : blocks) {
    block.time = time_of(block);
    add_block(block);
  }
  for (UnitPlan& unit : plan_.units) unit.why_width = unit.why_here = "given";
  return std::move(plan_);
}

void Planner::given_units(const std::vector<std::int64_t>& widths) {
  NF_CHECK(static_cast<std::int64_t>(widths.size()) == model_.unit_count(),
           "plan: it has {} units, {} has {}", widths.size(), model_.name(), model_.unit_count());
  for (std::int64_t i = 0; i < model_.unit_count(); ++i) {
    const std::int64_t width = widths[static_cast<std::size_t>(i)];
    NF_CHECK(last(i) ? width == 0 : width >= 1 && width <= 65536,
             "plan: unit {} ({}) has an auxiliary width of {}; it must be {}", i + 1,
             model_.unit(i).name(), width,
             last(i) ? "0, as the last has the net's head" : "in [1, 65536]");
  }
  for (std::int64_t i = 0; i < model_.unit_count(); ++i) {
    UnitPlan planned;
    planned.auxiliary_width = widths[static_cast<std::size_t>(i)];
    const std::unique_ptr<nn::Module> auxiliary =
        last(i) ? nullptr : make_auxiliary(model_, rule_, i, planned.auxiliary_width);
    const LocalUnit unit{model_.unit(i).name(), &model_.unit(i),
                         auxiliary ? auxiliary.get() : &model_.head()};
    planned.minimum_budget = unit_peak(unit, i, 1);
    planned.feasible_batch = feasible_batch(unit, i);
    add_unit(i, *unit.classifier, std::move(planned));
  }
  make_net();
}

// Units behind the first read what a cache gives: values.
Workload Planner::workload(UnitRange range, std::int64_t batch) const {
  return {batch,
          options_.train_count,
          {options_.validation_count},
          !last(range.last),
          range.first == 0 ? options_.format : std::nullopt};
}

std::int64_t Planner::unit_peak(const LocalUnit& unit, std::int64_t index, std::int64_t batch) {
  return profiler_.block_peak({unit}, model_.unit_input_shape(index, 1).sample(),
                              workload({index, index}, batch));
}

std::int64_t Planner::feasible_batch(const LocalUnit& unit, std::int64_t index) {
  const std::int64_t limit = std::min(kFeasibleFactor * options_.batch, options_.train_count);
  return largest_batch(limit, options_.budget,
                       [&](std::int64_t batch) { return unit_peak(unit, index, batch); });
}

void Planner::plan_units() {
  for (std::int64_t i = 0; i < model_.unit_count(); ++i) {
    UnitPlan planned;
    if (!last(i)) {
      const std::unique_ptr<nn::Module> auxiliary = choose_auxiliary(i, planned);
      add_unit(i, *auxiliary, std::move(planned));
      continue;
    }
    const LocalUnit local{model_.unit(i).name(), &model_.unit(i), &model_.head()};
    planned.minimum_budget = unit_peak(local, i, 1);
    planned.feasible_batch = feasible_batch(local, i);
    planned.why_width = "the net's own head";
    add_unit(i, model_.head(), std::move(planned));
  }
}

void Planner::add_unit(std::int64_t index, nn::Module& classifier, UnitPlan planned) {
  nn::Unit& unit = model_.unit(index);
  const Shape output = model_.unit_input_shape(index + 1, 1);
  planned.name = unit.name();
  planned.joined = unit.joined();
  planned.output = output.sample();
  planned.parameters = unit.parameter_count();
  planned.flops = unit.flops(model_.unit_input_shape(index, 1));
  planned.auxiliary_parameters = classifier.parameter_count();
  planned.auxiliary_flops = classifier.flops(output);
  planned.exit_parameters = planned.parameters + planned.auxiliary_parameters;
  planned.exit_flops = planned.flops + planned.auxiliary_flops;
  for (const UnitPlan& before : plan_.units) {
    planned.exit_parameters += before.parameters;
    planned.exit_flops += before.flops;
  }
  plan_.minimum_budget = std::max(plan_.minimum_budget, planned.minimum_budget);
  plan_.units.push_back(std::move(planned));
}

// The largest width that leaves the batch wanted, else the one with the largest feasible batch.
std::unique_ptr<nn::Module> Planner::choose_auxiliary(std::int64_t index, UnitPlan& planned) {
  nn::Unit& unit = model_.unit(index);
  const std::vector<std::int64_t> widths = rule_.widths(model_.unit_input_shape(index + 1, 1));
  NF_CHECK(!widths.empty(), "auxiliary rule {}: no width for unit {}", rule_.name(), unit.name());
  const std::int64_t wanted = std::min(options_.batch, options_.train_count);
  std::unique_ptr<nn::Module> best;
  bool best_is_enough = false;
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
    best_is_enough = enough;
    if (enough) break;
  }
  // The least budget counts the cheapest width even where a wider one fits.
  if (planned.auxiliary_width != widths.front()) {
    std::unique_ptr<nn::Module> cheapest = make_auxiliary(model_, rule_, index, widths.front());
    planned.minimum_budget =
        std::min(planned.minimum_budget, unit_peak({unit.name(), &unit, cheapest.get()}, index, 1));
  }
  if (widths.size() == 1)
    planned.why_width = fmt::format("the only width of the rule {}", rule_.name());
  else if (best_is_enough)
    planned.why_width =
        fmt::format("{} of the widths {} to {} with which batch {} fits",
                    planned.auxiliary_width == widths.back() ? "the widest" : "the widest one",
                    widths.front(), widths.back(), wanted);
  else
    planned.why_width = fmt::format("no width leaves batch {}; this one leaves the largest, {}",
                                    wanted, planned.feasible_batch);
  return best;
}

}  // namespace nf
