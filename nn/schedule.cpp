#include "nn/schedule.h"

#include <array>
#include <cmath>
#include <numbers>
#include <string>

#include "engine/error.h"
#include "engine/text.h"

namespace nf::nn {
namespace {

const std::array<std::string, 4> kNames{"constant", "step", "cosine", "one_cycle"};

/// From `begin` at 0 to `end` at 1 along half a cosine wave.
double anneal(double begin, double end, double position) {
  return end + (begin - end) * (1.0 + std::cos(std::numbers::pi * position)) / 2.0;
}

/// Without warm-up; step in [0, total).
double shape_factor(const Schedule& schedule, double step, double total) {
  switch (schedule.kind) {
    case ScheduleKind::constant:
      return 1.0;
    case ScheduleKind::step:
      return std::pow(schedule.gamma, std::floor(step / static_cast<double>(schedule.step_size)));
    case ScheduleKind::cosine:
      return anneal(1.0, schedule.final_factor, step / total);
    case ScheduleKind::one_cycle: {
      const double first = 1.0 / schedule.start_divisor;
      const double last = first / schedule.final_divisor;
      const double peak = schedule.rise * total - 1.0;
      if (step < peak) return anneal(first, 1.0, step / peak);
      const double begin = std::fmax(peak, 0.0);
      const double fall = total - 1.0 - begin;
      return fall > 0 ? anneal(1.0, last, (step - begin) / fall) : 1.0;
    }
  }
  return 1.0;
}

}  // namespace

const char* to_string(ScheduleKind kind) { return kNames[static_cast<std::size_t>(kind)].c_str(); }

ScheduleKind parse_schedule(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<ScheduleKind>(i);
  fail("schedule: must be constant, step, cosine or one_cycle, got \"{}\"; did you mean {}?", name,
       nearest_name(name, kNames));
}

void check_schedule(const Schedule& schedule) {
  NF_CHECK(schedule.warmup_steps >= 0, "schedule: warmup_steps must not be negative, got {}",
           schedule.warmup_steps);
  NF_CHECK(schedule.step_size >= 1, "schedule: step_size must be at least 1, got {}",
           schedule.step_size);
  NF_CHECK(schedule.gamma > 0 && schedule.gamma <= 1, "schedule: gamma must be in (0, 1], got {}",
           schedule.gamma);
  NF_CHECK(schedule.final_factor >= 0 && schedule.final_factor <= 1,
           "schedule: final_factor must be in [0, 1], got {}", schedule.final_factor);
  NF_CHECK(schedule.rise > 0 && schedule.rise < 1, "schedule: rise must be in (0, 1), got {}",
           schedule.rise);
  NF_CHECK(schedule.start_divisor >= 1 && std::isfinite(schedule.start_divisor),
           "schedule: start_divisor must be at least 1, got {}", schedule.start_divisor);
  NF_CHECK(schedule.final_divisor >= 1 && std::isfinite(schedule.final_divisor),
           "schedule: final_divisor must be at least 1, got {}", schedule.final_divisor);
}

double Schedule::factor(std::int64_t step, std::int64_t total_steps) const {
  check_schedule(*this);
  NF_CHECK(step >= 0 && step < total_steps, "schedule: step {} of {} does not exist", step,
           total_steps);
  NF_CHECK(warmup_steps < total_steps,
           "schedule: warmup_steps must be less than all {} steps, got {}", total_steps,
           warmup_steps);
  const auto total = static_cast<double>(total_steps - warmup_steps);
  if (step >= warmup_steps)
    return shape_factor(*this, static_cast<double>(step - warmup_steps), total);
  const double risen = static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  return risen * shape_factor(*this, 0.0, total);
}

}  // namespace nf::nn
