#include "neuroflux/joint_units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/models/registry.h"

namespace nf {
namespace {

using testing::Each;
using testing::SizeIs;

class JointUnits : public testing::Test {
 protected:
  static std::unique_ptr<nn::Model> net() {
    return nn::make_model("resnet18", {.input = {16, 16, 3}, .classes = 10, .width = 0.125});
  }
  PlanOptions options(std::int64_t budget) const {
    PlanOptions options;
    options.budget = budget;
    options.batch = 16;
    options.train_count = 200;
    options.validation_count = 40;
    return options;
  }
  std::vector<std::int64_t> sizes(const char* units, std::int64_t budget) const {
    const auto model = join_units_that_fit(net(), units, *rule_, options(budget), target_);
    std::vector<std::int64_t> sizes;
    for (const auto& unit : model->units()) sizes.push_back(unit->joined());
    return sizes;
  }

  std::shared_ptr<const AuxiliaryRule> rule_ = make_auxiliary_rule("adaptive");
  ContextOptions target_{.threads = 1};
};

constexpr std::int64_t kPlenty = std::int64_t{1} << 30;

TEST_F(JointUnits, ASmallerBudgetJoinsFewer) {
  EXPECT_THAT(sizes("1", kPlenty), SizeIs(1));
  EXPECT_THAT(sizes("2", kPlenty), SizeIs(2));
  std::size_t before = 1;
  for (std::int64_t budget = std::int64_t{8} << 20; budget >= std::int64_t{128} << 10;
       budget /= 2) {
    const std::vector<std::int64_t> joined = sizes("1", budget);
    EXPECT_GE(joined.size(), before) << budget;
    std::int64_t units = 0;
    for (const std::int64_t size : joined) units += size;
    EXPECT_EQ(units, 9) << budget;
    before = joined.size();
  }
  EXPECT_EQ(before, 9U);
  EXPECT_THAT(sizes("2", 1), Each(1));
}

// What is joined has a step that fits at the batch wanted.
TEST_F(JointUnits, EachFitsTheBatchWanted) {
  constexpr std::int64_t kBudget = std::int64_t{2} << 20;
  const auto model = join_units_that_fit(net(), "1", *rule_, options(kBudget), target_);
  ASSERT_LT(model->unit_count(), 9);
  const Plan plan = make_plan(*model, *rule_, options(kBudget), target_);
  ASSERT_TRUE(plan.fits);
  for (const UnitPlan& unit : plan.units) {
    if (unit.joined > 1) {
      EXPECT_GE(unit.feasible_batch, 16) << unit.name;
    }
  }
}

TEST_F(JointUnits, TheLeastBudgetIsThatOfUnitsAlone) {
  const auto model = net();
  const std::int64_t least = least_unit_budget(*model, *rule_, options(kPlenty), target_);
  EXPECT_EQ(make_plan(*model, *rule_, options(kPlenty), target_).minimum_budget, least);
  EXPECT_TRUE(make_plan(*model, *rule_, options(least), target_).fits);
  EXPECT_FALSE(make_plan(*model, *rule_, options(least - 1), target_).fits);
}

}  // namespace
}  // namespace nf
