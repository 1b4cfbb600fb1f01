#include "neuroflux/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

#include "neuroflux/cache_manifest.h"
#include "neuroflux/local_net.h"
#include "neuroflux/plan.h"
#include "neuroflux/time_profile.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"
#include "tests/neuroflux/made_up_times.h"

namespace nf {
namespace {

using testing::ElementsAre;

// Every way to cut `count` units, as a mask of the borders that are cut.
std::vector<UnitRange> blocks_of(std::uint32_t cuts, std::int64_t count) {
  std::vector<UnitRange> blocks{{0, 0}};
  for (std::int64_t unit = 1; unit < count; ++unit) {
    if ((cuts >> (unit - 1) & 1U) != 0)
      blocks.push_back({unit, unit});
    else
      blocks.back().last = unit;
  }
  return blocks;
}

std::optional<double> sum_of(const std::vector<UnitRange>& blocks, const BlockCost& cost) {
  double sum = 0.0;
  for (const UnitRange& block : blocks) {
    const std::optional<double> one = cost(block);
    if (!one) return std::nullopt;
    sum += *one;
  }
  return sum;
}

struct Best {
  std::optional<double> all, cut, joined;
};
// Over all partitions, and over those with and without a cut behind unit `border`.
Best brute_force(std::int64_t count, const BlockCost& cost, std::int64_t border) {
  Best best;
  for (std::uint32_t cuts = 0; cuts < 1U << (count - 1); ++cuts) {
    const std::optional<double> sum = sum_of(blocks_of(cuts, count), cost);
    if (!sum) continue;
    std::optional<double>& same = (cuts >> border & 1U) != 0 ? best.cut : best.joined;
    for (std::optional<double>* least : {&best.all, &same})
      if (!*least || *sum < **least) *least = *sum;
  }
  return best;
}

TEST(PartitionOptimal, AgreesWithBruteForceOnRandomCosts) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const std::int64_t count = 1 + static_cast<std::int64_t>(random() % 8);
    // A range is as feasible as its hardest part: past a random length nothing fits.
    const std::int64_t longest = 1 + static_cast<std::int64_t>(random() % 8);
    const std::int64_t impossible = trial % 10 == 0 ? static_cast<std::int64_t>(random() % 8) : -1;
    std::map<std::pair<std::int64_t, std::int64_t>, double> costs;
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t j = i; j < count; ++j)
        costs[{i, j}] = static_cast<double>(random() % 64);  // whole numbers: sums are exact
    int asked = 0;
    const BlockCost cost = [&](UnitRange range) -> std::optional<double> {
      ++asked;
      if (range.last - range.first >= longest) return std::nullopt;
      if (range.first <= impossible && impossible <= range.last) return std::nullopt;
      return costs.at({range.first, range.last});
    };
    const OptimalPartition optimum = partition_optimal(count, cost);
    EXPECT_LE(asked, count * (count + 1) / 2);
    const Best best = brute_force(count, cost, 0);
    ASSERT_EQ(optimum.blocks.empty(), !best.all.has_value());
    if (!best.all) continue;
    EXPECT_EQ(optimum.cost, *best.all);
    EXPECT_EQ(sum_of(optimum.blocks, cost), best.all);
    EXPECT_EQ(optimum.blocks.front().first, 0);
    EXPECT_EQ(optimum.blocks.back().last, count - 1);
    ASSERT_EQ(optimum.borders.size(), static_cast<std::size_t>(count - 1));
    for (std::int64_t border = 0; border + 1 < count; ++border) {
      const Best at = brute_force(count, cost, border);
      EXPECT_EQ(optimum.borders[static_cast<std::size_t>(border)].cut, at.cut);
      EXPECT_EQ(optimum.borders[static_cast<std::size_t>(border)].joined, at.joined);
    }
  }
}

TEST(PartitionOptimal, TiesGoToFewerBlocks) {
  const OptimalPartition optimum = partition_optimal(
      4, [](UnitRange range) { return static_cast<double>(range.last - range.first + 1); });
  EXPECT_THAT(optimum.blocks, ElementsAre(UnitRange{0, 3}));
}

TEST(PartitionHomogeneous, ComparesWithTheFirstOfTheBlock) {
  const std::vector<int> values{10, 12, 14, 20, 21};
  const auto blocks = partition_homogeneous(5, [&](std::int64_t first, std::int64_t unit) {
    return std::abs(values[static_cast<std::size_t>(unit)] -
                    values[static_cast<std::size_t>(first)]) <= 2;
  });
  EXPECT_THAT(blocks, ElementsAre(UnitRange{0, 1}, UnitRange{2, 2}, UnitRange{3, 4}));
}

TEST(PartitionRule, NamesAreParsedAndRefused) {
  for (const std::string& name : partition_rule_names())
    EXPECT_EQ(to_string(parse_partition_rule(name)), name);
  try {
    parse_partition_rule("optimum");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("did you mean 'optimal'?"));
  }
}

// The chance that a block is reached, as plan.h tells it.
double chance(std::int64_t first, std::int64_t units, const PlanOptions& options) {
  if (!options.stop_when_saturated) return 1.0;
  int reached = 0;
  for (std::int64_t last_useful = 0; last_useful < units; ++last_useful)
    reached += last_useful + options.patience >= first ? 1 : 0;
  return static_cast<double>(reached) / static_cast<double>(units);
}

struct NetCase {
  const char* model;
  double width;
  std::int64_t budget;  // bytes
  bool stops;
};

class OptimalPlan : public testing::TestWithParam<NetCase> {};

// Times and peaks of a block come from plans that a person would give, each block at the largest
// batch that such a plan accepts.
TEST_P(OptimalPlan, AgreesWithBruteForceOverGivenPlans) {
  const NetCase& given = GetParam();
  const auto net =
      nn::make_model(given.model, {.input = {16, 16, 3}, .classes = 10, .width = given.width});
  const std::int64_t units = net->unit_count();
  ASSERT_LE(units, 9);
  const auto rule = make_auxiliary_rule("adaptive");
  PlanOptions options;
  options.budget = given.budget;
  options.batch = 12;
  options.train_count = 120;
  options.validation_count = 24;
  options.test_count = 24;
  options.stop_when_saturated = given.stops;
  const ContextOptions target{.threads = 1};
  const auto times = make_predicted_times(target, options.optimizer, nominal_speed(target));
  const Plan plan = make_plan(*net, *rule, options, target, *times);
  ASSERT_TRUE(plan.fits);

  PlanChoice choice;
  for (const UnitPlan& unit : plan.units) choice.widths.push_back(unit.auxiliary_width);
  const auto cost_of = [&](UnitRange range) -> std::optional<double> {
    choice.blocks.clear();
    for (std::int64_t i = 0; i < range.first; ++i) choice.blocks.push_back({i, i, 1});
    const std::size_t at = choice.blocks.size();
    choice.blocks.push_back({range.first, range.last, 0});
    for (std::int64_t i = range.last + 1; i < units; ++i) choice.blocks.push_back({i, i, 1});
    for (std::int64_t batch = options.batch; batch >= 1; --batch) {
      choice.blocks[at].batch = batch;
      try {
        const BlockTime time =
            complete_plan(*net, *rule, choice, options, target, *times).blocks[at].time;
        return chance(range.first, units, options) * (time.train + time.evaluation) +
               chance(range.last + 1, units, options) * time.cache;
      } catch (const Error&) {  // does not fit
      }
    }
    return std::nullopt;
  };
  std::map<std::pair<std::int64_t, std::int64_t>, std::optional<double>> known;
  const BlockCost cost = [&](UnitRange range) {
    const auto [entry, fresh] = known.try_emplace({range.first, range.last});
    if (fresh) entry->second = cost_of(range);
    return entry->second;
  };
  const Best best = brute_force(units, cost, 0);
  ASSERT_TRUE(best.all);
  EXPECT_NEAR(plan.expected_seconds, *best.all, 1e-9 * *best.all);

  options.partition = PartitionRule::homogeneous;
  for (const double rho : {0.0, 0.4, 1.0}) {
    options.rho = rho;
    EXPECT_GE(make_plan(*net, *rule, options, target, *times).expected_seconds,
              plan.expected_seconds * (1.0 - 1e-12));
  }
}

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;
INSTANTIATE_TEST_SUITE_P(Nets, OptimalPlan,
                         testing::Values(NetCase{"vgg11", 0.125, 2 * kMebibyte, true},
                                         NetCase{"vgg11", 0.125, 2 * kMebibyte, false},
                                         NetCase{"vgg11", 0.125, 64 * kMebibyte, true},
                                         NetCase{"vgg11", 0.125, 64 * kMebibyte, false},
                                         NetCase{"resnet18", 0.125, 3 * kMebibyte, true},
                                         NetCase{"resnet18", 0.125, 3 * kMebibyte, false}),
                         [](const testing::TestParamInfo<NetCase>& info) {
                           return fmt::format("{}_{}MiB_{}", info.param.model,
                                              info.param.budget / kMebibyte,
                                              info.param.stops ? "Stopping" : "All");
                         });

// What a block costs at the best of a few batches, from the parts that plans are made of.
class BlockCosts {
 public:
  BlockCosts(nn::Model& model, const AuxiliaryRule& rule, const Plan& plan,
             const PlanOptions& options, const ContextOptions& target, TimeModel& times)
      : net_(model, rule, plan),
        units_(model.unit_count()),
        plan_(plan),
        options_(options),
        profiler_(target, options.optimizer),
        storage_(times.storage()) {
    for (std::int64_t i = 0; i < units_; ++i)
      passes_.push_back(times.unit(net_.range(i, i).front(), net_.input_sample(i),
                                   std::min(options.batch, unit(i).feasible_batch)));
  }

  // At the largest batch that fits, or a smaller one at which a time is known.
  std::optional<double> operator()(UnitRange range) {
    std::int64_t largest = options_.batch;
    while (largest >= 1 && !fits(range, largest)) --largest;
    if (largest < 1) return std::nullopt;
    std::set<std::int64_t> batches{largest};
    for (const PassTimes* passes : passes_of(range))
      for (const BatchTime::Point& point : passes->train.points())
        if (point.batch < largest) batches.insert(point.batch);
    std::optional<double> least;
    for (const std::int64_t batch : batches) {
      if (!fits(range, batch)) continue;
      const double seconds = cost(range, batch);
      if (!least || seconds < *least) least = seconds;
    }
    return least;
  }

 private:
  const UnitPlan& unit(std::int64_t i) const { return plan_.units[static_cast<std::size_t>(i)]; }
  bool last(UnitRange range) const { return range.last + 1 == units_; }

  bool fits(UnitRange range, std::int64_t batch) {
    const Workload workload{
        batch, options_.train_count, {options_.validation_count}, !last(range), std::nullopt};
    return profiler_.block_peak(net_.range(range.first, range.last), net_.input_sample(range.first),
                                workload) <= options_.budget;
  }

  std::vector<const PassTimes*> passes_of(UnitRange range) const {
    std::vector<const PassTimes*> passes;
    for (std::int64_t i = range.first; i <= range.last; ++i)
      passes.push_back(&passes_[static_cast<std::size_t>(i)]);
    return passes;
  }

  std::int64_t cached_bytes(const char* name, std::int64_t unit_index, std::int64_t count) const {
    return cache_bytes({.name = name,
                        .count = count,
                        .sample_shape = unit(unit_index).output,
                        .dtype = options_.cache_dtype});
  }

  double cost(UnitRange range, std::int64_t batch) const {
    BlockWork work{.epochs = options_.epochs,
                   .train_count = options_.train_count,
                   .validation_count = options_.validation_count};
    if (range.first > 0)
      work.read_bytes = cached_bytes("train", range.first - 1, options_.train_count);
    if (!last(range))
      work.write_bytes = cached_bytes("train", range.last, options_.train_count) +
                         cached_bytes("validation", range.last, options_.validation_count);
    const BlockTime time = block_time(passes_of(range), batch, work, storage_);
    return chance(range.first, units_, options_) * (time.train + time.evaluation) +
           chance(range.last + 1, units_, options_) * time.cache;
  }

  LocalNet net_;
  std::int64_t units_;
  const Plan& plan_;
  const PlanOptions& options_;
  MemoryProfiler profiler_;
  StorageSpeed storage_;
  std::vector<PassTimes> passes_;
};

class OptimalPlanOfJointUnits : public testing::TestWithParam<std::string> {};

TEST_P(OptimalPlanOfJointUnits, AgreesWithBruteForceOverBatchesToo) {
  const auto rule = make_auxiliary_rule("proportional");
  const ContextOptions target{.threads = 1};
  int several_blocks = 0;
  for (std::int64_t units = 2; units <= 8; ++units) {
    SCOPED_TRACE(fmt::format("{} units", units));
    auto net = nn::make_model(GetParam(), {.input = {32, 32, 3}, .classes = 10, .width = 0.125});
    const std::vector<std::int64_t> sizes = nn::joined_unit_sizes(*net, std::to_string(units));
    net = nn::join_units(std::move(net), sizes);
    ASSERT_EQ(net->unit_count(), units);
    PlanOptions options;
    options.budget = 1;
    options.batch = 8;
    options.train_count = 80;
    options.validation_count = 20;
    options.stop_when_saturated = units % 3 != 0;
    const bool tight = units % 2 == 0;
    const std::int64_t least = make_plan(*net, *rule, options, target).minimum_budget;
    options.budget = tight ? least + least / 4 : 3 * least;
    const auto predicted = make_predicted_times(target, options.optimizer, nominal_speed(target));
    SmallBatchesAreFast made_up;
    TimeModel& times = units < 5 ? *predicted : static_cast<TimeModel&>(made_up);
    const Plan plan = make_plan(*net, *rule, options, target, times);
    ASSERT_TRUE(plan.fits);
    several_blocks += plan.blocks.size() > 1 ? 1 : 0;

    BlockCosts costs(*net, *rule, plan, options, target, times);
    std::map<std::pair<std::int64_t, std::int64_t>, std::optional<double>> known;
    const BlockCost cost = [&](UnitRange range) {
      const auto [entry, fresh] = known.try_emplace({range.first, range.last});
      if (fresh) entry->second = costs(range);
      return entry->second;
    };
    const Best best = brute_force(units, cost, 0);
    ASSERT_TRUE(best.all);
    EXPECT_NEAR(plan.expected_seconds, *best.all, 1e-9 * *best.all);
  }
  EXPECT_GT(several_blocks, 0);
}

INSTANTIATE_TEST_SUITE_P(Zoo, OptimalPlanOfJointUnits, testing::ValuesIn(nn::model_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace nf
