// The promise that a plan makes: the bytes it predicts are the bytes a run reserves, in each phase.
#include <gtest/gtest.h>

#include <set>

#include "neuroflux/local_net.h"
#include "neuroflux/memory_profile.h"
#include "neuroflux/time_profile.h"
#include "neuroflux/whole_net_plan.h"
#include "nn/accumulate_trainer.h"
#include "nn/bp_trainer.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"
#include "tests/neuroflux/phase_peaks.h"

namespace nf::test {
namespace {

struct Case {
  const char* model;
  std::int64_t batch;
  bool onednn = true;
  double width = 0.25;
  nn::OptimizerKind optimizer = nn::OptimizerKind::sgd;
  DeviceKind device = DeviceKind::cpu;
  std::optional<nn::UpdateMoment> update = std::nullopt;
};

class MemoryExactness : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<nn::Model> model() const {
    return nn::make_model(GetParam().model,
                          {.input = {32, 32, 3}, .classes = 10, .width = GetParam().width});
  }
  ContextOptions device() const {
    return {.device = {.kind = GetParam().device},
            .budget = std::int64_t{2} << 30,
            .threads = 2,
            .onednn = GetParam().onednn};
  }
  nn::OptimizerOptions optimizer() const {
    return {.kind = GetParam().optimizer, .update = GetParam().update};
  }
  std::int64_t batch() const { return GetParam().batch; }
  /// Samples of the last batch of a set.
  std::int64_t rest() const { return batch() > 1 ? batch() / 2 + 1 : 0; }
  BatchSizes sizes() const {
    const std::vector<std::int64_t> both = batch_sizes(batch() + rest(), batch());
    return {both, both};
  }
  /// Of the data set: smaller images than the net reads, where the device prepares them.
  static std::optional<nn::PixelFormat> format() {
    if (GetParam().device == DeviceKind::cpu) return std::nullopt;
    return nn::PixelFormat{{27, 31, 3}, 3};
  }
  /// What each phase reserves, which must be what it reserves on the meta device.
  template <typename Trainer, typename... Arguments>
  std::vector<PhasePeak> phases_as_predicted(const MemoryProfiler& profiler, nn::Model& net,
                                             const Arguments&... arguments) const {
    const auto phases = [&](const ContextPtr& context) {
      return whole_net_phases<Trainer>(context, net, optimizer(), sizes(), format(), arguments...);
    };
    std::vector<PhasePeak> measured = phases(Context::create(device()));
    EXPECT_EQ(phases(profiler.context()), measured);
    return measured;
  }
  void expect_exact_units(const std::unique_ptr<nn::Model>& net, const AuxiliaryRule& rule);
  Workload workload(bool fills_cache, const std::optional<nn::PixelFormat>& format) const {
    return {batch(), batch() + rest(), {batch() + rest()}, fills_cache, format};
  }
};

TEST_P(MemoryExactness, BackpropagationReservesWhatWasPredicted) {
  const auto net = model();
  MemoryProfiler profiler(device(), optimizer());
  const std::vector<PhasePeak> measured = phases_as_predicted<nn::BpTrainer>(profiler, *net);
  EXPECT_EQ(profiler.bp_peak(*net, workload(false, format())), most_reserved(measured));
}

TEST_P(MemoryExactness, AccumulationReservesWhatWasPredicted) {
  const auto net = model();
  MemoryProfiler profiler(device(), optimizer());
  // Of a batch of 7: the whole, 5 and 2, single samples.
  const std::int64_t most = batch();
  for (const std::int64_t micro_batch :
       std::set<std::int64_t>{most, most / 2 + 2, (most + 6) / 7}) {
    const std::vector<PhasePeak> measured =
        phases_as_predicted<nn::AccumulateTrainer>(profiler, *net, micro_batch);
    EXPECT_EQ(profiler.accumulate_peak(*net, workload(false, format()), micro_batch),
              most_reserved(measured))
        << "micro-batches of " << micro_batch;
  }
}

TEST_P(MemoryExactness, RecomputationReservesWhatWasPredicted) {
  const auto net = model();
  MemoryProfiler profiler(device(), optimizer());
  for (const std::int64_t count : {std::int64_t{1}, std::int64_t{2}, net->unit_count()}) {
    const nn::Segments segments = nn::even_segments(net->unit_count(), count);
    const std::vector<PhasePeak> measured =
        phases_as_predicted<nn::CheckpointTrainer>(profiler, *net, segments);
    EXPECT_EQ(profiler.checkpoint_peak(*net, workload(false, format()), segments),
              most_reserved(measured))
        << count << " segments";
  }
}

TEST_P(MemoryExactness, EachUnitsLocalStepReservesWhatWasPredicted) {
  for (const char* rule : {"adaptive", "pooled", "deep"}) {
    SCOPED_TRACE(rule);
    expect_exact_units(model(), *make_auxiliary_rule(rule));
  }
}

TEST_P(MemoryExactness, JoinedUnitsReserveWhatWasPredicted) {
  const std::vector<std::int64_t> sizes = nn::joined_unit_sizes(*model(), "3");
  expect_exact_units(nn::join_units(model(), sizes), *make_auxiliary_rule("deep"));
}

void MemoryExactness::expect_exact_units(const std::unique_ptr<nn::Model>& net,
                                         const AuxiliaryRule& rule) {
  const LocalNet local(*net, rule,
                       std::vector<std::int64_t>(static_cast<std::size_t>(net->unit_count()), 16));
  MemoryProfiler profiler(device(), optimizer());
  const ContextPtr context = Context::create(device());
  for (std::int64_t i = 0; i < net->unit_count(); ++i) {
    const bool fills_cache = i + 1 < net->unit_count();
    const auto pixels = i == 0 ? format() : std::nullopt;
    const auto phases = [&](const ContextPtr& on) {
      return block_phases(on, local.range(i, i), local.input_sample(i), optimizer(), sizes(),
                          fills_cache, pixels);
    };
    const std::vector<PhasePeak> measured = phases(context);
    EXPECT_EQ(phases(profiler.context()), measured) << net->unit(i).name();
    EXPECT_EQ(profiler.block_peak(local.range(i, i), local.input_sample(i),
                                  workload(fills_cache, pixels)),
              most_reserved(measured))
        << net->unit(i).name();
  }
}

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const char* model : {"vgg11", "vgg16", "resnet18", "mobilenet_v1"})
    for (const std::int64_t batch : {1, 7, 32}) {
      cases.push_back({model, batch});
      if (batch == 7) cases.push_back({model, batch, false});
    }
  cases.push_back({.model = "resnet18", .batch = 7, .optimizer = nn::OptimizerKind::adamw});
  cases.push_back({.model = "vgg11", .batch = 7, .width = 1.0});
  for (const char* model : {"vgg11", "resnet18", "mobilenet_v1"})
    for (const nn::UpdateMoment update : {nn::UpdateMoment::immediate, nn::UpdateMoment::together})
      cases.push_back({.model = model, .batch = 7, .update = update});
  cases.push_back({.model = "resnet18",
                   .batch = 1,
                   .optimizer = nn::OptimizerKind::adamw,
                   .update = nn::UpdateMoment::immediate});
#if defined(NF_SIMT)
  for (const char* model : {"vgg11", "resnet18", "mobilenet_v1"})
    for (const auto& update :
         {std::optional<nn::UpdateMoment>(), std::optional(nn::UpdateMoment::immediate)})
      cases.push_back({.model = model,
                       .batch = 2,
                       .width = 0.125,
                       .device = DeviceKind::simt,
                       .update = update});
#endif
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, MemoryExactness, testing::ValuesIn(cases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           const Case& c = info.param;
                           return fmt::format(
                               "{}{}_batch{}{}{}{}{}", c.device == DeviceKind::simt ? "simt_" : "",
                               c.model, c.batch, c.onednn ? "" : "_eigen",
                               c.width == 1.0 ? "_full" : "",
                               c.optimizer == nn::OptimizerKind::sgd ? "" : "_adamw",
                               c.update ? std::string("_") + to_string(*c.update) : "");
                         });

// Stored images so large that nothing takes more than copying them.
TEST(MemoryExactnessOfPixels, CopyingThemIsPredicted) {
  const nn::PixelFormat format{{400, 400, 3}, 1};
  const auto net = nn::make_model("vgg11", {.input = {32, 32, 3}, .classes = 10, .width = 0.125});
  const auto rule = make_auxiliary_rule("proportional");
  const LocalNet local(*net, *rule,
                       std::vector<std::int64_t>(static_cast<std::size_t>(net->unit_count()), 8));
  const ContextOptions device{.threads = 1};
  MemoryProfiler profiler(device, {});
  const ContextPtr context = Context::create(device);
  const BatchSizes sizes{{16, 3}, {16, 3}};
  const Workload values{16, 19, {19}, true}, pixels{16, 19, {19}, true, format};
  const std::vector<LocalUnit> first = local.range(0, 0);
  const Shape sample = local.input_sample(0);
  const std::int64_t block = profiler.block_peak(first, sample, pixels);
  EXPECT_EQ(block, most_reserved(block_phases(context, first, sample, {}, sizes, true, format)));
  EXPECT_GT(block, profiler.block_peak(first, sample, values));
  const std::int64_t bp = profiler.bp_peak(*net, pixels);
  EXPECT_EQ(bp, most_reserved(bp_phases(context, *net, {}, sizes, format)));
  EXPECT_GT(bp, profiler.bp_peak(*net, values));
  // Of accumulation a micro-batch at a time.
  const std::int64_t accumulate = profiler.accumulate_peak(*net, pixels, 12);
  EXPECT_EQ(accumulate, most_reserved(whole_net_phases<nn::AccumulateTrainer>(
                            context, *net, {}, sizes, format, std::int64_t{12})));
  EXPECT_GT(accumulate, profiler.accumulate_peak(*net, values, 12));
  EXPECT_LT(accumulate, bp);
  const std::int64_t checkpoint = profiler.checkpoint_peak(*net, pixels);
  EXPECT_EQ(checkpoint, most_reserved(whole_net_phases<nn::CheckpointTrainer>(context, *net, {},
                                                                              sizes, format)));
  EXPECT_GT(checkpoint, profiler.checkpoint_peak(*net, values));

  // Later blocks read a cache, which holds values.
  PlanOptions options;
  options.budget = std::int64_t{1} << 30;
  options.batch = 16;
  const auto plan_of = [&](const std::optional<nn::PixelFormat>& of) {
    options.format = of;
    return make_plan(*net, *rule, options, device);
  };
  const Plan plain = plan_of(std::nullopt), stored = plan_of(format);
  EXPECT_EQ(plain.format, std::nullopt);
  EXPECT_EQ(stored.format, format);
  for (std::size_t i = 0; i < plain.units.size(); ++i)
    EXPECT_EQ(plain.units[i].minimum_budget < stored.units[i].minimum_budget, i == 0) << i;
  EXPECT_LT(plain.blocks.front().predicted_peak_bytes, stored.blocks.front().predicted_peak_bytes);
  EXPECT_EQ(plain.blocks.back().last_unit, stored.blocks.back().last_unit);
  for (const WholeNetMethod method :
       {WholeNetMethod::bp, WholeNetMethod::accumulate, WholeNetMethod::checkpoint}) {
    const auto least = [&](const std::optional<nn::PixelFormat>& of) {
      options.format = of;
      const auto times = make_predicted_times(device, options.optimizer, nominal_speed(device));
      return make_whole_net_plan(method, *net, options, device, *times).minimum_budget;
    };
    EXPECT_LT(least(std::nullopt), least(nn::PixelFormat{{1600, 1600, 3}, 1}));
  }
}

// What an update at once saves is in the plan, and what takes all gradients does without it.
TEST(MemoryExactnessOfUpdates, ThePlanKnowsWhenStepsUpdate) {
  const auto net = nn::make_model("resnet18", {.input = {32, 32, 3}, .classes = 10, .width = 0.25});
  const ContextOptions device{.threads = 1};
  struct Least {
    std::int64_t bp, accumulate, checkpoint, local;
    nn::UpdateMoment of_local;
  };
  const auto least = [&](const nn::OptimizerOptions& optimizer) {
    PlanOptions options;
    options.budget = std::int64_t{1} << 30;
    options.batch = 4;
    options.optimizer = optimizer;
    const auto whole = [&](WholeNetMethod method) {
      const auto times = make_predicted_times(device, options.optimizer, nominal_speed(device));
      return make_whole_net_plan(method, *net, options, device, *times).minimum_budget;
    };
    const Plan plan = make_plan(*net, *make_auxiliary_rule("proportional"), options, device);
    return Least{whole(WholeNetMethod::bp), whole(WholeNetMethod::accumulate),
                 whole(WholeNetMethod::checkpoint), plan.minimum_budget, plan.update};
  };
  const Least usual = least({});
  const Least together = least({.update = nn::UpdateMoment::together});
  const Least immediate = least({.update = nn::UpdateMoment::immediate});
  EXPECT_EQ(usual.bp, together.bp);
  EXPECT_EQ(usual.local, immediate.local);
  EXPECT_EQ(usual.of_local, nn::UpdateMoment::immediate);
  EXPECT_EQ(together.of_local, nn::UpdateMoment::together);
  // Gradients are a third of what a net, they and its momentum take; all but the largest go.
  EXPECT_LT(immediate.bp, together.bp * 9 / 10);
  EXPECT_LT(immediate.checkpoint, together.checkpoint * 9 / 10);
  EXPECT_LT(immediate.local, together.local);
  EXPECT_EQ(immediate.accumulate, together.accumulate);
  const Least clipped = least({.max_gradient_norm = 1.0, .update = nn::UpdateMoment::immediate});
  EXPECT_EQ(clipped.of_local, nn::UpdateMoment::together);
  EXPECT_GE(clipped.bp, together.bp);
  EXPECT_GE(clipped.local, together.local);
}

// Units that are together on the device hand their outputs on there.
TEST(MemoryExactnessOfBlocks, SeveralUnitsReserveWhatWasPredicted) {
  const auto net = nn::make_model("resnet18", {.input = {32, 32, 3}, .classes = 10, .width = 0.25});
  const auto rule = make_auxiliary_rule("proportional");
  const LocalNet local(*net, *rule,
                       std::vector<std::int64_t>(static_cast<std::size_t>(net->unit_count()), 16));
  const ContextOptions device{.threads = 2};
  MemoryProfiler profiler(device, {});
  const ContextPtr context = Context::create(device);
  // At the beginning, in the middle, and up to the net's own head, which fills no cache.
  const std::int64_t last = net->unit_count() - 1;
  for (const auto& [from, to] :
       {std::pair{std::int64_t{0}, std::int64_t{1}}, std::pair{std::int64_t{2}, std::int64_t{4}},
        std::pair{last - 2, last}}) {
    const bool fills_cache = to < last;
    const auto phases = [&, from = from, to = to](const ContextPtr& on) {
      return block_phases(on, local.range(from, to), local.input_sample(from), {}, {{7, 4}, {7, 4}},
                          fills_cache);
    };
    const std::vector<PhasePeak> measured = phases(context);
    EXPECT_EQ(phases(profiler.context()), measured) << "units " << from << " to " << to;
    EXPECT_EQ(profiler.block_peak(local.range(from, to), local.input_sample(from),
                                  {7, 11, {11}, fills_cache}),
              most_reserved(measured));
  }
}

}  // namespace
}  // namespace nf::test
