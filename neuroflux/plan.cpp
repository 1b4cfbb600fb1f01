#include "neuroflux/plan.h"

#include "neuroflux/planner.h"
#include "neuroflux/time_profile.h"

namespace nf {

std::vector<std::int64_t> joined_sizes(const Plan& plan) {
  std::vector<std::int64_t> sizes;
  for (const UnitPlan& unit : plan.units) sizes.push_back(unit.joined);
  return sizes;
}
namespace {

std::unique_ptr<TimeModel> predicted(const PlanOptions& options, const ContextOptions& target) {
  return make_predicted_times(target, options.optimizer, nominal_speed(target));
}

}  // namespace

void check_plan_options(const PlanOptions& options) {
  NF_CHECK(options.budget >= 1, "plan: the budget must be at least 1 byte, got {}", options.budget);
  NF_CHECK(options.batch >= 1 && options.batch <= kMaxBatch,
           "plan: the batch must be in [1, {}], got {}", kMaxBatch, options.batch);
  NF_CHECK(options.rho >= 0.0 && options.rho <= 1.0, "plan: rho must be in [0, 1], got {}",
           options.rho);
  NF_CHECK(options.train_count >= 1, "plan: the training set must have at least 1 image, got {}",
           options.train_count);
  NF_CHECK(options.validation_count >= 0, "plan: the validation set can't have {} images",
           options.validation_count);
  NF_CHECK(options.test_count >= 0, "plan: the test set can't have {} images", options.test_count);
  NF_CHECK(options.epochs >= 1, "plan: epochs must be at least 1, got {}", options.epochs);
  NF_CHECK(options.patience >= 1, "plan: patience must be at least 1, got {}", options.patience);
  NF_CHECK(options.linear_points >= 2,
           "plan: a line through measured peaks needs at least 2 of them, got {}",
           options.linear_points);
  NF_CHECK(options.cache_views >= 1 && options.cache_views <= kMaxCacheViews,
           "plan: the cached views must be in [1, {}], got {}", kMaxCacheViews,
           options.cache_views);
  nn::check_optimizer_options(options.optimizer);
}

Plan make_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
               const ContextOptions& target, TimeModel& times) {
  check_plan_options(options);
  return Planner(model, rule, options, target, times).make();
}

Plan make_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
               const ContextOptions& target) {
  check_plan_options(options);
  return make_plan(model, rule, options, target, *predicted(options, target));
}

Plan complete_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanChoice& choice,
                   const PlanOptions& options, const ContextOptions& target, TimeModel& times) {
  check_plan_options(options);
  return Planner(model, rule, options, target, times).complete(choice);
}

}  // namespace nf
