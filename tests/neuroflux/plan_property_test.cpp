// What holds of every plan: for random nets, budgets and settings.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "engine/random.h"
#include "neuroflux/local_trainer.h"
#include "neuroflux/whole_net_plan.h"
#include "nn/layers.h"
#include "tests/neuroflux/phase_peaks.h"

namespace nf::test {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kGranule = 64;  // bytes by which peaks differ on the CPU

/// A net of two to five units.
std::unique_ptr<nn::Model> random_net(RandomStream& random) {
  const nn::ModelOptions options{.input = {static_cast<std::int64_t>(5 + random.below(14)),
                                           static_cast<std::int64_t>(5 + random.below(14)),
                                           static_cast<std::int64_t>(1 + random.below(3))},
                                 .classes = static_cast<std::int64_t>(2 + random.below(9))};
  std::vector<std::unique_ptr<nn::Unit>> units;
  std::int64_t channels = options.input[2];
  const std::uint64_t count = 2 + random.below(4);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto out = static_cast<std::int64_t>(1 + random.below(40));
    const auto kernel = static_cast<std::int64_t>(1 + 2 * random.below(3));
    const auto stride = static_cast<std::int64_t>(1 + random.below(2));
    auto layers = std::make_unique<nn::Sequential>();
    layers->emplace<nn::ConvBnAct>(fmt::format("features.{}.conv", i),
                                   fmt::format("features.{}.bn", i), channels, out, kernel,
                                   nn::ConvBnOptions{.stride = stride});
    units.push_back(
        std::make_unique<nn::Unit>(fmt::format("features.{}", i), out, std::move(layers)));
    channels = out;
  }
  return std::make_unique<nn::Model>("random", options, std::move(units),
                                     nn::make_classifier("classifier", channels, options.classes));
}

/// Some images for that net.
nn::TrainingData random_data(const nn::Model& net, RandomStream& random) {
  const Shape& input = net.options().input;
  nn::GeneratedOptions options{.count = static_cast<std::int64_t>(30 + random.below(40)),
                               .height = input[0],
                               .width = input[1],
                               .channels = input[2],
                               .classes = net.options().classes};
  nn::ImageSet train = nn::generate_images(options);
  options.count = static_cast<std::int64_t>(11 + random.below(10));
  options.stream = 1;
  return {
      std::move(train), nn::generate_images(options), {.validation_fraction = 0.2, .pad_to = 0}};
}

/// A net, data for it and what is asked of its plan.
struct Trial {
  explicit Trial(RandomStream& random) : net(random_net(random)), data(random_data(*net, random)) {
    rule = make_auxiliary_rule(auxiliary_rule_names()[random.below(3)]);
    options.rho = std::array{0.0, 0.4, 1.0}[random.below(3)];
    options.batch = static_cast<std::int64_t>(1 + random.below(24));
    options.budget = static_cast<std::int64_t>(20000 + random.below(2000000));
    options.train_count = data.train_count();
    options.validation_count = data.validation_count();
    options.test_count = data.test_count();
  }

  ContextOptions device() const { return {.budget = options.budget, .threads = 1}; }
  Plan plan(std::int64_t budget) const {
    PlanOptions changed = options;
    changed.budget = budget;
    return make_plan(*net, *rule, changed, device());
  }
  WholeNetPlan bp_plan(std::int64_t budget) const {
    PlanOptions changed = options;
    changed.budget = budget;
    return make_bp_plan(*net, changed, device());
  }
  /// Every size of batch that a run at `batch` meets.
  BatchSizes sizes(std::int64_t batch, bool test) const {
    BatchSizes sizes{batch_sizes(options.train_count, batch),
                     batch_sizes(options.validation_count, batch)};
    if (test)
      for (const std::int64_t size : batch_sizes(options.test_count, batch))
        sizes.evaluate.push_back(size);
    return sizes;
  }

  std::unique_ptr<nn::Model> net;
  nn::TrainingData data;
  std::shared_ptr<const AuxiliaryRule> rule;
  PlanOptions options;
};

// How a plan came out, so that a test can tell that it has tried both.
struct Outcomes {
  int fitting = 0, refused = 0;
  void count(bool fits) { ++(fits ? fitting : refused); }
};

/// Holds the blocks of a plan against one another and against what they reserve.
void expect_blocks_keep(const Trial& trial, const Plan& plan) {
  const LocalNet local(*trial.net, *trial.rule, plan);
  std::int64_t next_unit = 0;
  for (const BlockPlan& block : plan.blocks) {
    EXPECT_EQ(block.first_unit, next_unit);
    ASSERT_GE(block.last_unit, block.first_unit);
    next_unit = block.last_unit + 1;
    ASSERT_GE(block.batch, 1);
    EXPECT_LE(block.batch, trial.options.batch);
    EXPECT_LE(block.predicted_peak_bytes, plan.budget);
    EXPECT_LE(block.predicted_peak_bytes, plan.predicted_peak_bytes);
    const ContextPtr context = Context::create({.budget = plan.budget, .threads = 1});
    const std::vector<PhasePeak> measured =
        block_phases(context, local.range(block.first_unit, block.last_unit),
                     local.input_sample(block.first_unit), trial.options.optimizer,
                     trial.sizes(block.batch, false), next_unit < trial.net->unit_count());
    EXPECT_EQ(most_reserved(measured), block.predicted_peak_bytes);
  }
  EXPECT_EQ(next_unit, trial.net->unit_count());
}

// What a plan says fits runs without going over the budget, at the predicted peaks; what it says
// does not fit has a least budget at which it does.
TEST(PlanProperty, NoBlockReservesMoreThanItsBudget) {
  RandomStream random(random_key(20, Purpose::test));
  Outcomes outcomes;
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(fmt::format("trial {}", i));
    const Trial trial(random);
    Plan plan = trial.plan(trial.options.budget);
    outcomes.count(plan.fits);
    EXPECT_EQ(plan.fits, plan.minimum_budget <= trial.options.budget);
    if (!plan.fits) {
      EXPECT_TRUE(plan.blocks.empty());
      plan = trial.plan(plan.minimum_budget);
      ASSERT_TRUE(plan.fits) << "the least budget, " << plan.minimum_budget << ", does not do";
    }
    expect_blocks_keep(trial, plan);
    if (i % 4 == 0) {
      EXPECT_FALSE(trial.plan(plan.minimum_budget - kGranule).fits);
    }
  }
  EXPECT_GE(outcomes.fitting, 3);
  EXPECT_GE(outcomes.refused, 3);
}

TEST(PlanProperty, BackpropagationReservesNoMoreThanItsBudget) {
  RandomStream random(random_key(21, Purpose::test));
  Outcomes outcomes;
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(fmt::format("trial {}", i));
    const Trial trial(random);
    std::int64_t budget = trial.options.budget / 4;
    WholeNetPlan plan = trial.bp_plan(budget);
    outcomes.count(plan.fits);
    EXPECT_EQ(plan.fits, plan.minimum_budget <= budget);
    if (!plan.fits) {
      EXPECT_EQ(plan.batch, 0);
      budget = plan.minimum_budget;
      plan = trial.bp_plan(budget);
      ASSERT_TRUE(plan.fits) << "the least budget, " << budget << ", does not do";
    }
    EXPECT_FALSE(trial.bp_plan(plan.minimum_budget - kGranule).fits);
    ASSERT_GE(plan.batch, 1);
    EXPECT_LE(plan.batch, trial.options.batch);
    EXPECT_LE(plan.predicted_peak_bytes, budget);
    if (i % 4 != 0) continue;
    const ContextPtr context = Context::create({.budget = budget, .threads = 1});
    const std::vector<PhasePeak> measured =
        bp_phases(context, *trial.net, trial.options.optimizer, trial.sizes(plan.batch, true));
    EXPECT_EQ(most_reserved(measured), plan.predicted_peak_bytes);
  }
  EXPECT_GE(outcomes.fitting, 3);
  EXPECT_GE(outcomes.refused, 3);
}

// Training from the data set to the test accuracy, through the caches of all blocks.
TEST(PlanProperty, WholeRunsKeepTheirBudget) {
  RandomStream random(random_key(22, Purpose::test));
  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("plan-property-{}", getpid());
  int several_blocks = 0;
  for (int i = 0; i < 6; ++i) {
    SCOPED_TRACE(fmt::format("trial {}", i));
    const Trial trial(random);
    // So tight that units differ in what they leave room for.
    const std::int64_t least = trial.plan(trial.options.budget).minimum_budget;
    const Plan plan = trial.plan(i % 2 == 0 ? least : least + least / 4);
    ASSERT_TRUE(plan.fits);
    for (const BlockPlan& block : plan.blocks) ASSERT_GE(block.batch, 1);
    several_blocks += plan.blocks.size() > 1 ? 1 : 0;
    const LocalNet local(*trial.net, *trial.rule, plan);
    LocalTrainingOptions training;
    training.epochs = 1;
    training.cache_folder = folder;
    training.stop_when_saturated = false;
    const ContextPtr context = Context::create({.budget = plan.budget, .threads = 1});
    const LocalResult result = train_locally(context, local, plan, trial.data, training);
    ASSERT_EQ(result.blocks.size(), plan.blocks.size());
    for (const BlockResult& block : result.blocks)
      EXPECT_EQ(block.measured_peak_bytes, block.plan.predicted_peak_bytes);
    EXPECT_LE(result.measured_peak_bytes, plan.budget);
    EXPECT_EQ(context->pool().stats().live, 0);
    EXPECT_FALSE(fs::exists(folder)) << "the caches are left";
  }
  EXPECT_GE(several_blocks, 2);
}

TEST(LargestBatch, AgreesWithTryingAll) {
  RandomStream random(random_key(23, Purpose::test));
  for (int trial = 0; trial < 200; ++trial) {
    const auto slope = static_cast<std::int64_t>(1 + random.below(9));
    const auto base = static_cast<std::int64_t>(random.below(50));
    const auto budget = static_cast<std::int64_t>(random.below(300));
    const auto limit = static_cast<std::int64_t>(1 + random.below(70));
    // Workspaces that are asked for from some batch on bend the line.
    const auto bend = static_cast<std::int64_t>(1 + random.below(70));
    const auto jump = static_cast<std::int64_t>(random.below(100));
    const auto peak = [&](std::int64_t batch) {
      return base + slope * batch + (batch >= bend ? jump + batch * batch / 8 : 0);
    };
    std::int64_t expected = 0;
    for (std::int64_t batch = 1; batch <= limit; ++batch)
      if (peak(batch) <= budget) expected = batch;
    EXPECT_EQ(largest_batch(limit, budget, peak), expected);
  }
}

TEST(BatchSizes, WholeOnesAndTheRest) {
  EXPECT_EQ(batch_sizes(10, 4), (std::vector<std::int64_t>{4, 2}));
  EXPECT_EQ(batch_sizes(8, 4), (std::vector<std::int64_t>{4}));
  EXPECT_EQ(batch_sizes(3, 4), (std::vector<std::int64_t>{3}));
  EXPECT_TRUE(batch_sizes(0, 4).empty());
}

}  // namespace
}  // namespace nf::test
