#include "nn/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/error.h"

namespace nf::nn {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// A few roundings of values of at most 1.
constexpr double kFactorRounding = 8 * 0x1p-53;

TEST(Schedule, ConstantIsOne) {
  for (const std::int64_t step : {0, 7, 99}) EXPECT_EQ(Schedule{}.factor(step, 100), 1.0);
}

TEST(Schedule, StepCutsEverySoManySteps) {
  const Schedule schedule{.kind = ScheduleKind::step, .step_size = 10, .gamma = 0.5};
  EXPECT_EQ(schedule.factor(0, 100), 1.0);
  EXPECT_EQ(schedule.factor(9, 100), 1.0);
  EXPECT_EQ(schedule.factor(10, 100), 0.5);
  EXPECT_EQ(schedule.factor(29, 100), 0.25);
  EXPECT_EQ(schedule.factor(99, 100), std::pow(0.5, 9));
}

TEST(Schedule, CosineFollowsItsFormula) {
  const Schedule schedule{.kind = ScheduleKind::cosine, .final_factor = 0.1};
  for (std::int64_t step = 0; step < 40; ++step) {
    const double angle = std::numbers::pi * static_cast<double>(step) / 40;
    EXPECT_NEAR(schedule.factor(step, 40), 0.1 + 0.9 * (1 + std::cos(angle)) / 2, kFactorRounding);
  }
  EXPECT_EQ(schedule.factor(0, 40), 1.0);
  EXPECT_NEAR(schedule.factor(20, 40), 0.55, kFactorRounding);
}

TEST(Schedule, OneCycleRisesAndFalls) {
  const Schedule schedule{
      .kind = ScheduleKind::one_cycle, .rise = 0.3, .start_divisor = 25, .final_divisor = 100};
  const std::int64_t total = 100;
  // As PyTorch's OneCycleLR: the peak at step 0.3 * 100 - 1, the end at 99.
  EXPECT_NEAR(schedule.factor(0, total), 1.0 / 25, kFactorRounding);
  EXPECT_NEAR(schedule.factor(29, total), 1.0, kFactorRounding);
  EXPECT_NEAR(schedule.factor(64, total), (1.0 + 1.0 / 2500) / 2, kFactorRounding);
  EXPECT_NEAR(schedule.factor(99, total), 1.0 / 2500, kFactorRounding);
  for (std::int64_t step = 1; step < total; ++step)
    EXPECT_EQ(schedule.factor(step, total) > schedule.factor(step - 1, total), step <= 29) << step;
  for (const std::int64_t few : {1, 2, 3})
    for (std::int64_t step = 0; step < few; ++step) {
      EXPECT_GT(schedule.factor(step, few), 0.0);
      EXPECT_LE(schedule.factor(step, few), 1.0);
    }
}

TEST(Schedule, WarmUpRisesLinearlyIntoTheSchedule) {
  const Schedule schedule{.kind = ScheduleKind::cosine, .warmup_steps = 4};
  EXPECT_EQ(schedule.factor(0, 24), 0.25);
  EXPECT_EQ(schedule.factor(1, 24), 0.5);
  EXPECT_EQ(schedule.factor(3, 24), 1.0);
  EXPECT_EQ(schedule.factor(4, 24), 1.0);
  EXPECT_NEAR(schedule.factor(14, 24), 0.5, kFactorRounding);
  // The least that may be left.
  EXPECT_EQ(schedule.factor(3, 5), 1.0);
}

TEST(Schedule, ErrorsNameTheRuleAndTheValue) {
  EXPECT_THAT([] { Schedule{}.factor(10, 10); },
              ThrowsMessage<Error>(HasSubstr("step 10 of 10 does not exist")));
  EXPECT_THAT([] { Schedule{}.factor(-1, 10); }, ThrowsMessage<Error>(HasSubstr("step -1")));
  EXPECT_THAT([] { check_schedule({.warmup_steps = -1}); },
              ThrowsMessage<Error>(HasSubstr("warmup_steps must not be negative, got -1")));
  EXPECT_THAT(
      [] { Schedule{.warmup_steps = 10}.factor(0, 10); },
      ThrowsMessage<Error>(HasSubstr("warmup_steps must be less than all 10 steps, got 10")));
  EXPECT_THAT([] { check_schedule({.step_size = 0}); },
              ThrowsMessage<Error>(HasSubstr("step_size must be at least 1, got 0")));
  EXPECT_THAT([] { check_schedule({.gamma = 2}); }, ThrowsMessage<Error>(HasSubstr("gamma")));
  EXPECT_THAT([] { check_schedule({.final_factor = -0.5}); },
              ThrowsMessage<Error>(HasSubstr("final_factor must be in [0, 1], got -0.5")));
  EXPECT_THAT([] { check_schedule({.rise = std::nan("")}); },
              ThrowsMessage<Error>(HasSubstr("rise must be in (0, 1), got nan")));
  EXPECT_THAT([] { check_schedule({.start_divisor = 0}); },
              ThrowsMessage<Error>(HasSubstr("start_divisor")));
  EXPECT_THAT([] { parse_schedule("cosin"); },
              ThrowsMessage<Error>(HasSubstr("got \"cosin\"; did you mean cosine?")));
  for (const ScheduleKind kind :
       {ScheduleKind::constant, ScheduleKind::step, ScheduleKind::cosine, ScheduleKind::one_cycle})
    EXPECT_EQ(parse_schedule(to_string(kind)), kind);
}

}  // namespace
}  // namespace nf::nn
