#include "neuroflux/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/timer.h"
#include "neuroflux/experiment.h"
#include "neuroflux/local_net.h"
#include "neuroflux/time_profile.h"
#include "neuroflux/whole_net_plan.h"
#include "nn/models/registry.h"
#include "tests/neuroflux/made_up_times.h"

namespace nf {
namespace {

using testing::HasSubstr;

std::unique_ptr<nn::Model> half_vgg11() {
  return nn::make_model("vgg11", {.input = {32, 32, 1}, .classes = 10, .width = 0.5});
}

PlanOptions options_for(std::int64_t budget) {
  PlanOptions options;
  options.budget = budget;
  options.train_count = 1000;
  options.validation_count = 100;
  options.test_count = 100;
  return options;
}

PlanOptions homogeneous_for(std::int64_t budget) {
  PlanOptions options = options_for(budget);
  options.partition = PartitionRule::homogeneous;
  return options;
}

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

TEST(Plan, TakesOneBlockWhenEverythingIsAlike) {
  const auto net = half_vgg11();
  PlanOptions options = homogeneous_for(4096 * kMiB);
  options.rho = 1.0;
  const Plan plan = make_plan(*net, *make_auxiliary_rule("proportional"), options, {.threads = 1});
  ASSERT_TRUE(plan.fits);
  // Every unit is feasible at the training set's size, so none differs from the first.
  EXPECT_EQ(plan.blocks.size(), 1U);
  EXPECT_EQ(plan.blocks[0].batch, 64);
  EXPECT_EQ(plan.cache_bytes, 0);
}

TEST(Plan, SplitsWhereFeasibleBatchesDiffer) {
  const auto net = half_vgg11();
  const Plan plan = make_plan(*net, *make_auxiliary_rule("proportional"),
                              homogeneous_for(24 * kMiB), {.threads = 1});
  ASSERT_TRUE(plan.fits);
  EXPECT_GT(plan.blocks.size(), 1U);
  for (const BlockPlan& block : plan.blocks)
    for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i) {
      const auto first = static_cast<double>(
          plan.units[static_cast<std::size_t>(block.first_unit)].feasible_batch);
      const auto own = static_cast<double>(plan.units[static_cast<std::size_t>(i)].feasible_batch);
      EXPECT_LE(std::abs(own - first), 0.4 * first);
    }
}

// How the net is cut hangs on what fits, not on which of that is fastest.
TEST(Plan, JoinsUnitsByTheBatchesThatFitWhicheverIsFastest) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("proportional");
  const auto cuts = [&](std::int64_t budget, TimeModel& times) {
    std::vector<UnitRange> ranges;
    for (const BlockPlan& block :
         make_plan(*net, *rule, homogeneous_for(budget), {.threads = 1}, times).blocks)
      ranges.push_back({block.first_unit, block.last_unit});
    return ranges;
  };
  const ContextOptions target{.threads = 1};
  const auto predicted = make_predicted_times(target, {}, nominal_speed(target));
  SmallBatchesAreFast made_up;
  EXPECT_EQ(cuts(4096 * kMiB, made_up).size(), 1U);
  for (const std::int64_t budget : {16 * kMiB, 24 * kMiB, 64 * kMiB})
    EXPECT_EQ(cuts(budget, made_up), cuts(budget, *predicted)) << budget;
}

TEST(Plan, TakesTheFastestBatchThatFits) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("proportional");
  const ContextOptions target{.threads = 1};
  SmallBatchesAreFast times;
  PlanOptions options = options_for(64 * kMiB);
  for (const PartitionRule partition :
       {PartitionRule::optimal, PartitionRule::homogeneous, PartitionRule::whole}) {
    options.partition = partition;
    const Plan plan = make_plan(*net, *rule, options, target, times);
    ASSERT_TRUE(plan.fits);
    for (const BlockPlan& block : plan.blocks) {
      EXPECT_EQ(block.batch, SmallBatchesAreFast::kFastest);
      EXPECT_GT(block.feasible_batch, block.batch);
    }
  }
  for (const WholeNetMethod method : {WholeNetMethod::bp, WholeNetMethod::checkpoint})
    EXPECT_EQ(make_whole_net_plan(method, *net, options, target, times).batch,
              SmallBatchesAreFast::kFastest);
  EXPECT_EQ(
      make_whole_net_plan(WholeNetMethod::accumulate, *net, options, target, times).micro_batch,
      SmallBatchesAreFast::kFastest);
  // The peak is that of the batch taken.
  const std::int64_t peak = make_plan(*net, *rule, options, target, times).predicted_peak_bytes;
  options.batch = SmallBatchesAreFast::kFastest;
  EXPECT_EQ(make_plan(*net, *rule, options, target, times).predicted_peak_bytes, peak);
}

TEST(Plan, AdaptiveWidthShrinksWithTheBudget) {
  const auto net = nn::make_model("vgg11", {.input = {32, 32, 3}, .classes = 10});
  const auto rule = make_auxiliary_rule("adaptive");
  const Plan roomy = make_plan(*net, *rule, options_for(1024 * kMiB), {.threads = 1});
  const Plan tight =
      make_plan(*net, *rule, options_for(roomy.minimum_budget + 4 * kMiB), {.threads = 1});
  ASSERT_TRUE(roomy.fits);
  ASSERT_TRUE(tight.fits);
  // No more than the unit has channels where there is room: 64, then 128, then 256 at most.
  EXPECT_EQ(roomy.units[0].auxiliary_width, 64);
  EXPECT_EQ(roomy.units[1].auxiliary_width, 128);
  EXPECT_EQ(roomy.units[2].auxiliary_width, 256);
  std::int64_t roomy_sum = 0, tight_sum = 0;
  for (std::size_t i = 0; i < roomy.units.size(); ++i) {
    roomy_sum += roomy.units[i].auxiliary_width;
    tight_sum += tight.units[i].auxiliary_width;
  }
  EXPECT_LT(tight_sum, roomy_sum);
}

TEST(Plan, ExitsAreCountedWithTheirClassifiers) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("proportional");
  const Plan plan = make_plan(*net, *rule, options_for(64 * kMiB), {.threads = 1});
  const LocalNet local(*net, *rule, plan);
  std::int64_t units = 0;
  for (std::int64_t i = 0; i < net->unit_count(); ++i) {
    units += net->unit(i).parameter_count();
    EXPECT_EQ(plan.units[static_cast<std::size_t>(i)].exit_parameters,
              units + local.classifier(i).parameter_count());
  }
  EXPECT_EQ(plan.units.back().exit_parameters, net->parameter_count());
  EXPECT_EQ(plan.full_parameters, net->parameter_count());
}

TEST(Plan, TellsTheLeastBudgetWhenNothingFits) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("adaptive");
  const Plan refused = make_plan(*net, *rule, options_for(100000), {.threads = 1});
  EXPECT_FALSE(refused.fits);
  EXPECT_TRUE(refused.blocks.empty());
  EXPECT_TRUE(make_plan(*net, *rule, options_for(refused.minimum_budget), {.threads = 1}).fits);
  EXPECT_FALSE(
      make_plan(*net, *rule, options_for(refused.minimum_budget - 1), {.threads = 1}).fits);

  const WholeNetPlan bp = make_bp_plan(*net, options_for(100000), {.threads = 1});
  EXPECT_FALSE(bp.fits);
  EXPECT_EQ(make_bp_plan(*net, options_for(bp.minimum_budget), {.threads = 1}).batch, 1);
  EXPECT_FALSE(make_bp_plan(*net, options_for(bp.minimum_budget - 1), {.threads = 1}).fits);
  // The point of the method.
  EXPECT_LT(refused.minimum_budget, bp.minimum_budget);
}

TEST(Plan, WholeKeepsAllUnitsTogether) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("classic");
  PlanOptions options = options_for(100000);
  options.partition = PartitionRule::whole;
  const Plan refused = make_plan(*net, *rule, options, {.threads = 1});
  EXPECT_FALSE(refused.fits);
  options.budget = refused.minimum_budget;
  const Plan least = make_plan(*net, *rule, options, {.threads = 1});
  ASSERT_TRUE(least.fits);
  ASSERT_EQ(least.blocks.size(), 1U);
  EXPECT_EQ(least.blocks[0].batch, 1);
  EXPECT_EQ(least.predicted_peak_bytes, refused.minimum_budget);
  options.budget = refused.minimum_budget - 1;
  EXPECT_FALSE(make_plan(*net, *rule, options, {.threads = 1}).fits);
  // More than its largest unit needs alone.
  EXPECT_GT(refused.minimum_budget,
            make_plan(*net, *rule, options_for(100000), {.threads = 1}).minimum_budget);
}

TEST(WholeNetPlan, AccumulationAndCheckpointsFitWhereBackpropagationDoesNot) {
  const auto net = half_vgg11();
  PlanOptions options = options_for(4096 * kMiB);
  const ContextOptions target{.threads = 1};
  const auto times = make_predicted_times(target, options.optimizer, nominal_speed(target));
  const auto plan = [&](WholeNetMethod method) {
    return make_whole_net_plan(method, *net, options, target, *times);
  };
  const WholeNetPlan whole = plan(WholeNetMethod::bp);
  ASSERT_EQ(whole.batch, 64);
  EXPECT_EQ(plan(WholeNetMethod::accumulate).micro_batch, 64);
  EXPECT_EQ(plan(WholeNetMethod::checkpoint).segments, nn::sqrt_segments(net->unit_count()));
  // A byte less than the whole batch takes at once.
  options.budget = whole.predicted_peak_bytes - 1;
  EXPECT_LT(plan(WholeNetMethod::bp).batch, 64);
  const WholeNetPlan accumulate = plan(WholeNetMethod::accumulate);
  EXPECT_EQ(accumulate.batch, 64);
  EXPECT_LT(accumulate.micro_batch, 64);
  EXPECT_GT(accumulate.micro_batch, 0);
  const WholeNetPlan checkpoint = plan(WholeNetMethod::checkpoint);
  EXPECT_EQ(checkpoint.batch, 64);
  EXPECT_LE(checkpoint.predicted_peak_bytes, options.budget);
  // One more forward pass.
  EXPECT_GT(checkpoint.time.train, whole.time.train);
  for (const WholeNetMethod method :
       {WholeNetMethod::bp, WholeNetMethod::accumulate, WholeNetMethod::checkpoint}) {
    options.budget = 1;
    const WholeNetPlan refused = plan(method);
    EXPECT_FALSE(refused.fits);
    options.budget = refused.minimum_budget;
    EXPECT_TRUE(plan(method).fits);
    options.budget = refused.minimum_budget - 1;
    EXPECT_FALSE(plan(method).fits);
  }
}

TEST(WholeNetPlan, TheLeastBudgetWithCheckpointsHangsOnNoOther) {
  const ContextOptions target{.threads = 1};
  for (const char* model : {"vgg11", "resnet18"}) {
    SCOPED_TRACE(model);
    const auto net = nn::make_model(model, {.input = {32, 32, 3}, .classes = 10, .width = 0.125});
    PlanOptions options = options_for(4096 * kMiB);
    const auto times = make_predicted_times(target, options.optimizer, nominal_speed(target));
    const auto plan = [&](std::int64_t budget) {
      options.budget = budget;
      return make_whole_net_plan(WholeNetMethod::checkpoint, *net, options, target, *times);
    };
    const std::int64_t least = plan(4096 * kMiB).minimum_budget;
    for (const std::int64_t budget : {std::int64_t{1}, least, least + least / 4, 8 * kMiB})
      EXPECT_EQ(plan(budget).minimum_budget, least) << budget;
    const WholeNetPlan tight = plan(least);
    ASSERT_TRUE(tight.fits);
    EXPECT_LE(tight.predicted_peak_bytes, least);
    EXPECT_FALSE(plan(least - 1).fits);
    // Square-root segments do with more.
    const Workload one{1, options.train_count, {options.validation_count, options.test_count}};
    EXPECT_LT(least, MemoryProfiler(target, options.optimizer).checkpoint_peak(*net, one));
  }
}

TEST(Plan, LinearMemoryModelIsToldBesideTheExactPeak) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("adaptive");
  PlanOptions options = options_for(24 * kMiB);
  options.memory_model = MemoryModel::linear;
  const Plan plan = make_plan(*net, *rule, options, {.threads = 1});
  ASSERT_TRUE(plan.fits);
  bool told = false;
  for (const BlockPlan& block : plan.blocks) {
    EXPECT_LE(block.predicted_peak_bytes, options.budget);  // whatever the line says
    if (!block.linear_peak_bytes) continue;
    told = true;
    const auto exact = static_cast<double>(block.predicted_peak_bytes);
    // It chose the batch. Where Eigen's workspaces have reached their cap it is far too high.
    EXPECT_LE(*block.linear_peak_bytes, options.budget);
    EXPECT_GE(static_cast<double>(*block.linear_peak_bytes), 0.8 * exact);
  }
  EXPECT_TRUE(told);
  options.linear_points = 1;
  EXPECT_THROW(make_plan(*net, *rule, options, {.threads = 1}), Error);
}

// Under the least budget of all units together, a line through peaks that bend (as where workspaces
// reach their cap) leaves room for nothing, and one sample fits.
TEST(Plan, LinearMemoryModelLeavesToTheExactOneWhereItFindsNoRoom) {
  int left_to_exact = 0;
  for (const auto& [model, width] :
       {std::pair{"vgg11", 0.5}, std::pair{"vgg11", 0.125}, std::pair{"resnet18", 0.25}})
    for (const bool onednn : {false, true})
      for (const std::int64_t points : {3, 4, 5}) {
        SCOPED_TRACE(fmt::format("{} {} {} {}", model, width, onednn, points));
        const auto net =
            nn::make_model(model, {.input = {32, 32, 1}, .classes = 10, .width = width});
        const auto rule = make_auxiliary_rule("proportional");
        const ContextOptions target{.threads = 1, .onednn = onednn};
        PlanOptions options = options_for(1);
        options.partition = PartitionRule::whole;
        options.memory_model = MemoryModel::linear;
        options.linear_points = points;
        options.budget = make_plan(*net, *rule, options, target).minimum_budget;
        const Plan plan = make_plan(*net, *rule, options, target);
        ASSERT_TRUE(plan.fits);
        ASSERT_EQ(plan.blocks.size(), 1U);
        EXPECT_GE(plan.blocks[0].batch, 1);
        EXPECT_LE(plan.blocks[0].predicted_peak_bytes, options.budget);
        const bool several =
            std::all_of(plan.units.begin(), plan.units.end(),
                        [](const UnitPlan& unit) { return unit.feasible_batch > 1; });
        if (several && !plan.blocks[0].linear_peak_bytes) ++left_to_exact;
      }
  EXPECT_GT(left_to_exact, 0);
}

TEST(Plan, SaysWhyInWords) {
  const auto net = half_vgg11();
  const auto rule = make_auxiliary_rule("adaptive");
  PlanOptions options = options_for(16 * kMiB);
  for (const PartitionRule partition : {PartitionRule::optimal, PartitionRule::homogeneous}) {
    options.partition = partition;
    const Plan plan = make_plan(*net, *rule, options, {.threads = 1});
    ASSERT_TRUE(plan.fits);
    for (const BlockPlan& block : plan.blocks)
      for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i) {
        const UnitPlan& unit = plan.units[static_cast<std::size_t>(i)];
        EXPECT_FALSE(unit.why_width.empty());
        EXPECT_THAT(unit.why_here, HasSubstr(i == 0                  ? "first unit"
                                             : i == block.first_unit ? "begins a block"
                                                                     : "joins"));
      }
  }
}

TEST(Plan, LeavesTheModelOffEveryDevice) {
  const auto net = half_vgg11();
  make_plan(*net, *make_auxiliary_rule("adaptive"), options_for(64 * kMiB), {.threads = 1});
  make_bp_plan(*net, options_for(64 * kMiB), {.threads = 1});
  for (const nn::Parameter* parameter : net->all()) EXPECT_FALSE(parameter->value);
}

TEST(Plan, RefusesNonsense) {
  const auto net = half_vgg11();
  const auto message = [&](PlanOptions options) -> std::string {
    try {
      make_plan(*net, *make_auxiliary_rule("adaptive"), options, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  PlanOptions options = options_for(0);
  EXPECT_THAT(message(options), HasSubstr("budget must be at least 1 byte, got 0"));
  options = options_for(kMiB);
  options.batch = 0;
  EXPECT_THAT(message(options), HasSubstr("batch must be in [1, 16777216], got 0"));
  options = options_for(kMiB);
  options.rho = 1.5;
  EXPECT_THAT(message(options), HasSubstr("rho must be in [0, 1], got 1.5"));
}

// In processor time, which a busy machine disturbs least; the less of two. The two methods of
// `plan` unless it is told others, then all five.
TEST(Plan, TakesLessThanASecond) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
  GTEST_SKIP() << "this build is a slow one";
#endif
  for (const char* model : {"vgg19", "resnet50", "mobilenet_v2"})
    for (const bool all : {false, true})
      for (const std::int64_t budget : {512 * kMiB, 8192 * kMiB}) {
        ExperimentOptions options;
        options.model = model;
        options.methods = all ? method_names() : std::vector<std::string>{"bp", "neuroflux"};
        options.units = "each";
        options.budget = budget;
        options.device.threads = 2;
        double least = std::numeric_limits<double>::infinity();
        for (int time = 0; time < 2; ++time) {
          const ProcessorTimer timer;
          const ExperimentPlan plan = plan_experiment(options, DataShape{});
          least = std::min(least, timer.seconds());
          EXPECT_EQ(plan.methods.size(), options.methods.size());
        }
        EXPECT_LT(least, all ? 2.0 : 1.0) << model << " under " << budget << " bytes";
      }
}

TEST(AuxiliaryRule, UnknownNamesGetTheNearest) {
  try {
    make_auxiliary_rule("adaptiv");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'adaptive'"));
  }
}

TEST(AuxiliaryRule, ClassifiesMapsOfAnySize) {
  for (const std::string& name : auxiliary_rule_names())
    for (const Shape& features : {Shape{3, 1, 1, 5}, Shape{3, 2, 7, 16}, Shape{3, 32, 32, 64}}) {
      const auto rule = make_auxiliary_rule(name);
      for (const std::int64_t width : rule->widths(features))
        EXPECT_EQ(rule->make("aux", features, 10, width)->output_shape(features), (Shape{3, 10}));
    }
}

TEST(AuxiliaryRule, PooledClassifiersCostWhatIsSaid) {
  const std::int64_t channels = 48, width = 32, classes = 10;
  const Shape features{1, 16, 16, channels};
  const auto classifier = make_pooled_classifier("aux", features, classes, width);
  EXPECT_EQ(classifier->flops(features),
            2 * width * (16 * channels + 16 * 9 + 4 * width) + 2 * width * classes);
  const auto adaptive = make_conv_classifier("aux", features, classes, width, 8);
  EXPECT_GT(adaptive->flops(features), 25 * classifier->flops(features));
}

TEST(AuxiliaryRule, DeepClassifiersCostWhatIsSaid) {
  const std::int64_t channels = 64, classes = 10;
  const Shape features{1, 16, 16, channels};
  const auto classifier = make_deep_classifier("aux", features, classes, channels);
  const std::int64_t linear = 2 * 2 * 4 * channels * classes;
  EXPECT_EQ(classifier->flops(features), 9216 * channels * channels + 2 * linear);
  // Convolutions to 2, 4 and again 4 times as many channels, their batch norms, the linear layer.
  EXPECT_EQ(classifier->parameter_count(),
            9 * channels * channels * (2 + 8 + 16) + 2 * channels * (2 + 4 + 4) + linear + classes);
  // Twice as wide for each halving, but no wider than 512.
  const Shape many{1, 16, 16, 256};
  const auto widest = make_deep_classifier("aux", many, classes, 256);
  EXPECT_EQ(widest->flops(many), 4608 * 256 * 256 + 2 * 2 * 2 * 512 * classes);
  EXPECT_EQ(widest->parameter_count(),
            9 * (256 * 512 + 2 * 512 * 512) + 2 * 3 * 512 + 4 * 512 * classes + classes);
}

}  // namespace
}  // namespace nf
