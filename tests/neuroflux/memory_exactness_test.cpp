// The promise that a plan makes: the bytes it predicts are the bytes a run reserves.
#include <gtest/gtest.h>

#include "engine/random.h"
#include "neuroflux/memory_profile.h"
#include "neuroflux/plan.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf {
namespace {

constexpr std::int64_t kValidation = 5;

// Host data for batches of up to `size` samples; small values, so that no loss overflows.
struct HostData {
  HostData(const Shape& sample, std::int64_t size)
      : images(static_cast<std::size_t>(sample.numel() * size)),
        labels(static_cast<std::size_t>(size)) {
    RandomStream random(random_key(1, Purpose::test));
    for (float& value : images) value = random.uniform() - 0.5F;
    for (std::int32_t& label : labels) label = static_cast<std::int32_t>(random.below(2));
  }
  std::vector<float> images;
  std::vector<std::int32_t> labels;
};

// Two whole batches and a last one of a single sample.
std::int64_t train_count(std::int64_t batch) { return 2 * batch + (batch > 1 ? 1 : 0); }

// What a run does with a block: every batch of an epoch, evaluation, then the cache.
std::int64_t measured_block_peak(const ContextPtr& context, const std::vector<LocalUnit>& units,
                                 const Shape& sample, const nn::OptimizerOptions& optimizer,
                                 std::int64_t batch, bool fills_cache) {
  const HostData data(sample, batch);
  LocalBlock block(context, units, sample, optimizer, 1);
  std::vector<float> output(static_cast<std::size_t>(batch * block.output_sample_shape().numel()));
  for (std::int64_t left = train_count(batch); left > 0; left -= batch)
    block.train(data.images.data(), data.labels.data(), std::min(batch, left), {});
  for (std::int64_t left = kValidation; left > 0; left -= batch)
    block.evaluate(data.images.data(), data.labels.data(), std::min(batch, left));
  if (fills_cache)
    for (std::int64_t left = train_count(batch); left > 0; left -= batch)
      block.forward(data.images.data(), std::min(batch, left), output.data());
  return context->pool().stats().peak_reserved;
}

struct Case {
  const char* model;
  std::int64_t batch;
  bool onednn;
};

class MemoryExactness : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<nn::Model> model() const {
    return nn::make_model(GetParam().model, {.input = {32, 32, 3}, .classes = 10, .width = 0.25});
  }
  ContextOptions device() const { return {.threads = 2, .onednn = GetParam().onednn}; }
};

TEST_P(MemoryExactness, BackpropagationReservesWhatWasPredicted) {
  const auto net = model();
  const std::int64_t batch = GetParam().batch;
  const nn::OptimizerOptions optimizer;
  MemoryProfiler profiler(device(), optimizer);
  const std::int64_t predicted =
      profiler.bp_peak(*net, {batch, train_count(batch), {kValidation}, false});

  const ContextPtr context = Context::create(device());
  const HostData data({32, 32, 3}, batch);
  nn::BpTrainer trainer(context, *net, optimizer, 1);
  for (std::int64_t left = train_count(batch); left > 0; left -= batch)
    trainer.train(data.images.data(), data.labels.data(), std::min(batch, left), {});
  for (std::int64_t left = kValidation; left > 0; left -= batch)
    trainer.evaluate(data.images.data(), data.labels.data(), std::min(batch, left));
  EXPECT_EQ(context->pool().stats().peak_reserved, predicted);
}

TEST_P(MemoryExactness, EachUnitsLocalStepReservesWhatWasPredicted) {
  const auto net = model();
  const auto rule = make_auxiliary_rule("adaptive");
  std::vector<std::int64_t> widths(static_cast<std::size_t>(net->unit_count()), 16);
  const LocalNet local(*net, *rule, widths);
  const std::int64_t batch = GetParam().batch;
  const nn::OptimizerOptions optimizer;
  MemoryProfiler profiler(device(), optimizer);
  for (std::int64_t i = 0; i < net->unit_count(); ++i) {
    const bool fills_cache = i + 1 < net->unit_count();
    const std::vector<LocalUnit> units = local.range(i, i);
    const std::int64_t predicted = profiler.block_peak(
        units, local.input_sample(i), {batch, train_count(batch), {kValidation}, fills_cache});
    const ContextPtr context = Context::create(device());
    EXPECT_EQ(
        measured_block_peak(context, units, local.input_sample(i), optimizer, batch, fills_cache),
        predicted)
        << net->unit(i).name();
  }
}

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const char* model : {"vgg11", "vgg16", "resnet18", "mobilenet_v1"})
    for (const std::int64_t batch : {1, 7, 32}) {
      cases.push_back({model, batch, true});
      if (batch == 7) cases.push_back({model, batch, false});
    }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, MemoryExactness, testing::ValuesIn(cases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           return fmt::format("{}_batch{}{}", info.param.model, info.param.batch,
                                              info.param.onednn ? "" : "_eigen");
                         });

// A random net of two to five units.
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

// For random nets and budgets: what a plan says fits runs without going over the budget, at the
// predicted peaks; what it says does not fit has a least budget at which it does.
TEST(PlanProperty, NoRunReservesMoreThanItsBudget) {
  RandomStream random(random_key(20, Purpose::test));
  int fitting = 0, refused = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const auto net = random_net(random);
    const auto rule = make_auxiliary_rule(auxiliary_rule_names()[random.below(3)]);
    PlanOptions options;
    options.batch = static_cast<std::int64_t>(1 + random.below(24));
    options.budget = static_cast<std::int64_t>(20000 + random.below(2000000));
    options.train_count = train_count(options.batch);
    options.validation_count = kValidation;
    options.test_count = 0;
    const ContextOptions device{.budget = options.budget, .threads = 1};
    Plan plan = make_plan(*net, *rule, options, device);
    if (!plan.fits) {
      ++refused;
      EXPECT_GT(plan.minimum_budget, options.budget);
      options.budget = plan.minimum_budget;
      plan = make_plan(*net, *rule, options, device);
      ASSERT_TRUE(plan.fits) << "the least budget, " << options.budget << ", does not do";
    } else {
      ++fitting;
      EXPECT_LE(plan.minimum_budget, options.budget);
    }
    const LocalNet local(*net, *rule, plan);
    std::int64_t next_unit = 0;
    for (const BlockPlan& block : plan.blocks) {
      EXPECT_EQ(block.first_unit, next_unit);
      next_unit = block.last_unit + 1;
      EXPECT_LE(block.predicted_peak_bytes, options.budget);
      EXPECT_LE(block.batch, options.batch);
      const ContextPtr context = Context::create({.budget = options.budget, .threads = 1});
      // measured_block_peak trains an epoch of train_count(batch) samples: as planned only where
      // the batch is the one wanted, so the profile is asked again for a smaller one.
      MemoryProfiler profiler(device, options.optimizer);
      const bool fills_cache = block.last_unit + 1 < net->unit_count();
      const std::vector<LocalUnit> units = local.range(block.first_unit, block.last_unit);
      const Shape sample = local.input_sample(block.first_unit);
      const std::int64_t predicted = profiler.block_peak(
          units, sample, {block.batch, train_count(block.batch), {kValidation}, fills_cache});
      EXPECT_EQ(
          measured_block_peak(context, units, sample, options.optimizer, block.batch, fills_cache),
          predicted);
    }
    EXPECT_EQ(next_unit, net->unit_count());
  }
  // Both outcomes must have been tried.
  EXPECT_GE(fitting, 5);
  EXPECT_GE(refused, 5);
}

TEST(LargestBatch, AgreesWithTryingAll) {
  RandomStream random(random_key(21, Purpose::test));
  for (int trial = 0; trial < 200; ++trial) {
    const auto slope = static_cast<std::int64_t>(1 + random.below(9));
    const auto base = static_cast<std::int64_t>(random.below(50));
    const auto budget = static_cast<std::int64_t>(random.below(300));
    const auto limit = static_cast<std::int64_t>(1 + random.below(70));
    const auto peak = [&](std::int64_t batch) { return base + slope * batch; };
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
}  // namespace nf
