// How a plan is made: auxiliary networks, then blocks with their batches, then reasons. The steps
// behind make_plan and complete_plan.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/local_net.h"
#include "neuroflux/plan.h"

namespace nf {

class Planner {
 public:
  Planner(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
          const ContextOptions& target, TimeModel& times);

  Plan make();
  Plan complete(const PlanChoice& choice);

 private:
  // Units.
  void begin();
  void plan_units();
  void given_units(const std::vector<std::int64_t>& widths);
  void add_unit(std::int64_t index, nn::Module& classifier, UnitPlan planned);
  std::unique_ptr<nn::Module> choose_auxiliary(std::int64_t index, UnitPlan& planned);
  std::int64_t unit_peak(const LocalUnit& unit, std::int64_t index, std::int64_t batch);
  std::int64_t feasible_batch(const LocalUnit& unit, std::int64_t index);

  // Blocks.
  void make_net();
  void time_units();
  std::vector<UnitRange> cut();
  std::vector<UnitRange> homogeneous();
  std::optional<double> cost(UnitRange range);
  bool alike(std::int64_t first, std::int64_t candidate) const;
  std::int64_t members_batch(UnitRange range) const;
  const BlockPlan& fit_block(UnitRange range);
  BlockPlan largest_fit(UnitRange range, std::int64_t members);
  std::int64_t block_peak(UnitRange range, std::int64_t batch);
  Workload workload(UnitRange range, std::int64_t batch) const;
  BlockTime time_of(const BlockPlan& block) const;
  double chance(std::int64_t first_unit) const;
  double expected(const BlockPlan& block) const;
  /// Of all that is cached behind a unit, or of one view of the training set.
  std::int64_t cached_bytes(std::int64_t last_unit, bool all) const;
  std::vector<const PassTimes*> pass_times(UnitRange range) const;
  void add_block(const BlockPlan& block);

  // Reasons.
  void explain();
  std::string explain_border(std::int64_t unit, bool begins);
  std::string explain_alike(std::int64_t first, std::int64_t unit, bool begins) const;

  bool last(std::int64_t unit) const { return unit + 1 == model_.unit_count(); }
  UnitPlan& unit_plan(std::int64_t i) { return plan_.units[static_cast<std::size_t>(i)]; }
  const UnitPlan& unit_plan(std::int64_t i) const {
    return plan_.units[static_cast<std::size_t>(i)];
  }

  nn::Model& model_;
  const AuxiliaryRule& rule_;
  PlanOptions options_;
  MemoryProfiler profiler_;
  TimeModel& times_;
  std::unique_ptr<LocalNet> net_;
  std::vector<PassTimes> unit_times_;
  StorageSpeed storage_;
  OptimalPartition optimum_;
  std::vector<std::vector<std::optional<BlockPlan>>> fitted_;  // [first][last]
  Plan plan_;
};

}  // namespace nf
