// Why a plan is as it is, in words.
#include <cmath>

#include "engine/text.h"
#include "neuroflux/planner.h"

namespace nf {

void Planner::explain() {
  std::int64_t first_of_previous = 0;
  for (const BlockPlan& block : plan_.blocks) {
    for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i) {
      const bool begins = i == block.first_unit;
      std::string& why = unit_plan(i).why_here;
      if (i == 0)
        why = "the first unit";
      else if (options_.partition == PartitionRule::whole)
        why = "all units are trained together";
      else if (options_.partition == PartitionRule::homogeneous)
        why = explain_alike(begins ? first_of_previous : block.first_unit, i, begins);
      else
        why = explain_border(i, begins);
    }
    first_of_previous = block.first_unit;
  }
}

std::string Planner::explain_border(std::int64_t unit, bool begins) {
  const OptimalPartition::Border& border = optimum_.borders[static_cast<std::size_t>(unit - 1)];
  const std::int64_t before = unit_plan(unit - 1).feasible_batch;
  const std::int64_t here = unit_plan(unit).feasible_batch;
  if (begins) {
    if (!border.joined) return "begins a block: with the unit before it, it fits at no batch";
    return fmt::format(
        "begins a block: joined to unit {} (alone {} and {} samples fit) the expected time would "
        "be "
        "{:.3g} s more",
        unit, before, here, *border.joined - *border.cut);
  }
  if (!border.cut) return "joins: the units behind it fit in no block of their own";
  return fmt::format("joins: a cut before it would cost {:.3g} s more, {} of cache included",
                     *border.cut - *border.joined, format_bytes(cached_bytes(unit - 1, true)));
}

std::string Planner::explain_alike(std::int64_t first, std::int64_t unit, bool begins) const {
  const std::int64_t a = unit_plan(first).feasible_batch, b = unit_plan(unit).feasible_batch;
  const double apart = std::abs(static_cast<double>(a - b)) / static_cast<double>(a);
  if (!begins)
    return fmt::format("joins: {} samples fit, {:.0f}% from unit {}'s {}; rho is {:.0f}%", b,
                       apart * 100.0, first + 1, a, options_.rho * 100.0);
  if (!alike(first, unit))
    return fmt::format("begins a block: {} samples fit, {:.0f}% from unit {}'s {}; rho is {:.0f}%",
                       b, apart * 100.0, first + 1, a, options_.rho * 100.0);
  return fmt::format(
      "begins a block: together with units {}-{} the batch would fall by more than "
      "rho, {:.0f}%",
      first + 1, unit, options_.rho * 100.0);
}

}  // namespace nf
