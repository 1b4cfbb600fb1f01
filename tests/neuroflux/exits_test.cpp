#include "neuroflux/exits.h"

#include <gtest/gtest.h>

#include "nn/models/registry.h"

namespace nf {
namespace {

std::vector<ExitResult> exits(std::initializer_list<std::pair<std::int64_t, double>> list) {
  std::vector<ExitResult> result;
  for (const auto& [parameters, accuracy] : list)
    result.push_back({static_cast<std::int64_t>(result.size()), parameters, 0, accuracy});
  return result;
}

TEST(ChooseExit, TakesTheSmallestWithinTheTolerance) {
  const auto list = exits({{100, 0.80}, {300, 0.896}, {200, 0.895}, {900, 0.90}});
  EXPECT_EQ(choose_exit(list, 0.0051), 2U);
  EXPECT_EQ(choose_exit(list, 0.0045), 1U);
  EXPECT_EQ(choose_exit(list, 0.0), 3U);
  EXPECT_EQ(choose_exit(list, 1.0), 0U);
}

TEST(ChooseExit, TakesTheSmallestOfAnAccuracy) {
  const std::vector<ExitResult> list{
      {0, 100, 0, 0.70}, {1, 300, 0, 0.90}, {2, 200, 0, 0.90}, {3, 400, 0, 0.95}};
  EXPECT_EQ(choose_exit(list, 0.0, 0.70), 0U);
  EXPECT_EQ(choose_exit(list, 0.0, 0.71), 2U);
  EXPECT_EQ(choose_exit(list, 1.0, 0.91), 3U);
  // None has it: as without.
  EXPECT_EQ(choose_exit(list, 0.0, 0.96), 3U);
  EXPECT_EQ(choose_exit(list, 0.06, 0.96), 2U);
}

TEST(ChooseExit, NeedsAnExit) { EXPECT_THROW(choose_exit({}, 0.0), Error); }

TEST(Saturated, LooksAtTheLastExitsOnly) {
  EXPECT_FALSE(saturated(exits({{1, 0.5}}), 1, 0.0));
  EXPECT_TRUE(saturated(exits({{1, 0.5}, {1, 0.5}}), 1, 0.0));
  EXPECT_FALSE(saturated(exits({{1, 0.5}, {1, 0.6}}), 1, 0.05));
  EXPECT_TRUE(saturated(exits({{1, 0.5}, {1, 0.54}}), 1, 0.05));
  // One good exit among the last two is enough to go on.
  EXPECT_FALSE(saturated(exits({{1, 0.5}, {1, 0.6}, {1, 0.4}}), 2, 0.05));
  EXPECT_TRUE(saturated(exits({{1, 0.5}, {1, 0.6}, {1, 0.4}}), 1, 0.05));
}

TEST(ExitNet, IsTheUnitsAndTheirClassifier) {
  const auto net = nn::make_model("vgg11", {.input = {32, 32, 3}, .classes = 7, .width = 0.25});
  const auto rule = make_auxiliary_rule("proportional");
  const LocalNet local(*net, *rule,
                       std::vector<std::int64_t>(static_cast<std::size_t>(net->unit_count()), 8));
  ExitNet exit(local, 2);
  EXPECT_EQ(exit.output_shape({5, 32, 32, 3}), (Shape{5, 7}));
  std::int64_t parameters = local.classifier(2).parameter_count(), flops = 0;
  for (std::int64_t i = 0; i <= 2; ++i) {
    parameters += net->unit(i).parameter_count();
    flops += net->unit(i).flops(net->unit_input_shape(i, 1));
  }
  EXPECT_EQ(exit.parameter_count(), parameters);
  EXPECT_EQ(exit.flops({1, 32, 32, 3}),
            flops + local.classifier(2).flops(net->unit_input_shape(3, 1)));
  exit.materialize(make_meta_context({}), 0);
  EXPECT_GT(exit.buffer_count(), 0);
  exit.fold_batch_norms();
  EXPECT_EQ(exit.buffer_count(), 0) << "a part of the exit was not folded";
}

TEST(MeasureInference, StaysWithinTheBudgetOrSaysThatNothingFits) {
  const auto net = nn::make_model("vgg11", {.input = {32, 32, 3}, .classes = 10, .width = 0.125});
  const ContextOptions roomy{.budget = 64 << 20, .threads = 1};
  const InferenceSpeed fast = measure_inference(*net, {32, 32, 3}, roomy, 8);
  EXPECT_EQ(fast.batch, 8);
  EXPECT_GT(fast.images_per_second, 0.0);
  const ContextOptions tight{.budget = 64 << 10, .threads = 1};
  EXPECT_EQ(measure_inference(*net, {32, 32, 3}, tight, 8).batch, 0);
  EXPECT_FALSE(net->materialized());
}

}  // namespace
}  // namespace nf
