// Learning rate over time, as a factor on the optimizer's own.
#pragma once

#include <cstdint>
#include <string_view>

namespace nf::nn {

enum class ScheduleKind : std::uint8_t { constant, step, cosine, one_cycle };

const char* to_string(ScheduleKind kind);
/// Throws Error naming the value and the known kinds.
ScheduleKind parse_schedule(std::string_view name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::constant;
  /// Steps over which the factor first rises linearly; the schedule proper fills the rest,
  /// at least one step.
  std::int64_t warmup_steps = 0;
  std::int64_t step_size = 1;   ///< step: steps between two cuts
  double gamma = 0.1;           ///< step: factor of each cut
  double final_factor = 0.0;    ///< cosine: where it heads; a step after the last would be there
  double rise = 0.3;            ///< one_cycle: share of the steps until the peak
  double start_divisor = 25.0;  ///< one_cycle: the peak over the first factor
  double final_divisor = 1e4;   ///< one_cycle: the first over the last factor

  /// Factor for step 0..total_steps-1, at most 1. Throws Error for a step out of range, a warm-up
  /// that leaves no step for the schedule proper, or options that make no sense.
  double factor(std::int64_t step, std::int64_t total_steps) const;
};

/// Throws Error naming the option, its rule and its value.
void check_schedule(const Schedule& schedule);

}  // namespace nf::nn
