#include "neuroflux/time_left.h"

#include <gtest/gtest.h>

namespace nf {
namespace {

TimeLeft two_methods() {
  return TimeLeft(
      {{1, "bp", 10.0}, {1, "neuroflux block 1/2", 4.0}, {1, "neuroflux block 2/2", 6.0, true}});
}

TEST(TimeLeft, IsUnknownBeforeAnythingWasMeasured) {
  TimeLeft left = two_methods();
  EXPECT_FALSE(left.seconds().has_value());
  left.update("bp", 0.1, 100.0);
  EXPECT_FALSE(left.seconds().has_value());
}

TEST(TimeLeft, IsThePlansTimesAsFastAsTheRunIs) {
  TimeLeft left = two_methods();
  left.update("bp", 0.0, 100.0);
  left.update("bp", 0.5, 110.0);  // 5 s were predicted: half as fast
  EXPECT_DOUBLE_EQ(*left.seconds(), 2.0 * (5.0 + 4.0 + 6.0));
  left.update("bp", 1.0, 120.0);
  left.update("neuroflux block 1/2", 0.0, 120.0);
  EXPECT_DOUBLE_EQ(*left.seconds(), 2.0 * (4.0 + 6.0));
  left.update("neuroflux block 1/2", 1.0, 120.0 + 4.0);  // as predicted: 24 s for 14
  EXPECT_DOUBLE_EQ(*left.seconds(), 6.0 * 24.0 / 14.0);
}

TEST(TimeLeft, SaysAtMostWhileBlocksMayBeLeftOut) {
  TimeLeft left = two_methods();
  EXPECT_TRUE(left.at_most());
  left.update("neuroflux block 2/2", 0.5, 1.0);
  EXPECT_FALSE(left.at_most());
}

TEST(TimeLeft, WhatAnotherProcessDidCountsAsDoneAndIsNotMeasured) {
  TimeLeft left = two_methods();
  left.update("neuroflux block 1/2", 0.5, 7.0);
  EXPECT_FALSE(left.seconds().has_value());
  left.update("neuroflux block 1/2", 1.0, 8.0);  // 2 s predicted, 1 s measured
  EXPECT_DOUBLE_EQ(*left.seconds(), 3.0);
}

TEST(TimeLeft, BlocksThatWereLeftOutAreNotTakenForFastOnes) {
  TimeLeft left({{1, "neuroflux block 1/2", 4.0},
                 {1, "neuroflux block 2/2", 6.0, true},
                 {2, "neuroflux block 1/2", 4.0},
                 {2, "neuroflux block 2/2", 6.0, true}});
  left.update("neuroflux block 1/2", 0.0, 0.0);
  left.update("neuroflux block 1/2", 1.0, 8.0);
  left.begin_run(2);
  EXPECT_DOUBLE_EQ(*left.seconds(), 20.0);
  left.update("neuroflux block 1/2", 0.5, 12.0);
  EXPECT_DOUBLE_EQ(*left.seconds(), 2.0 * (2.0 + 6.0));
}

TEST(TimeLeft, AMethodThatDivergedIsNotTakenForAFastOne) {
  TimeLeft left = two_methods();
  left.update("bp", 0.0, 0.0);
  left.update("bp", 0.1, 2.0);  // 1 s was predicted
  left.update("neuroflux block 1/2", 0.0, 2.0);
  EXPECT_DOUBLE_EQ(*left.seconds(), 2.0 * (4.0 + 6.0));
}

TEST(TimeLeft, AStageThatIsNotPlannedChangesNothing) {
  TimeLeft left = two_methods();
  left.update("bp", 0.0, 0.0);
  left.update("bp", 0.5, 5.0);
  left.update("something else", 0.9, 50.0);
  EXPECT_DOUBLE_EQ(*left.seconds(), 15.0);
  left.begin_run(2);
  EXPECT_DOUBLE_EQ(*left.seconds(), 0.0);
}

TEST(TimeLeft, PartsAreTheStagesOfAPlan) {
  Summary plan;
  plan.methods.resize(3);
  plan.methods[0].name = "bp";
  plan.methods[0].fits = true;
  plan.methods[0].predicted_seconds = 9.0;
  plan.methods[1].name = "local";  // does not fit
  plan.methods[2].name = "neuroflux";
  plan.methods[2].fits = true;
  plan.methods[2].predicted_seconds = 12.0;
  plan.methods[2].blocks.resize(2);
  plan.methods[2].blocks[0].predicted_seconds = 2.0;
  plan.methods[2].blocks[1].predicted_seconds = 6.0;
  const std::vector<TimeLeft::Part> parts = parts_of(3, plan, true);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[0].stage, "bp");
  EXPECT_EQ(parts[0].seconds, 9.0);
  EXPECT_EQ(parts[1].stage, "neuroflux block 1/2");
  EXPECT_EQ(parts[1].seconds, 3.0);
  EXPECT_FALSE(parts[1].optional);
  EXPECT_EQ(parts[2].seconds, 9.0);
  EXPECT_TRUE(parts[2].optional);
  EXPECT_EQ(parts[2].run, 3);
}

}  // namespace
}  // namespace nf
