// That a step which has run before makes nothing by `operator new` when it runs again. Without
// oneDNN, whose calls make maps of their own.
#include <gtest/gtest.h>

#include <functional>

#include "nn/accumulate_trainer.h"
#include "nn/bp_trainer.h"
#include "nn/checkpoint_trainer.h"
#include "nn/models/registry.h"
#include "tests/nn/trainers.h"
#include "tests/support/system_blocks.h"

namespace nf::nn {
namespace {

constexpr std::int64_t kSteadyBatch = 6;
constexpr int kStepsBefore = 2, kSteadySteps = 3;

struct SteadyCase {
  const char* name;
  const char* model;
  OptimizerOptions optimizer;
  std::function<std::unique_ptr<WholeNetTrainer>(const ContextPtr&, Model&,
                                                 const OptimizerOptions&)>
      make;
};

class SteadyStep : public testing::TestWithParam<SteadyCase> {};

TEST_P(SteadyStep, MakesNothingOnTheHeap) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer blocks really go";
#endif
  const SteadyCase& c = GetParam();
  const ContextPtr context =
      Context::create({.budget = std::int64_t{256} << 20, .threads = 2, .onednn = false});
  const std::unique_ptr<Model> model =
      make_model(c.model, {.input = {32, 32, 3}, .classes = 10, .width = 0.25, .dropout = 0.5});
  const std::unique_ptr<WholeNetTrainer> trainer = c.make(context, *model, c.optimizer);
  const Batch batch = random_batch(model->options(), kSteadyBatch);
  const HostBatch host = host_batch(batch, model->options().input);
  const auto train = [&] { trainer->train(host, {.label_smoothing = 0.1}); };
  const auto evaluate = [&] { trainer->evaluate(host); };
  EXPECT_EQ(test::blocks_of(3, [] { ::operator delete(::operator new(1)); }), 3);
  test::blocks_of(kStepsBefore, train);
  EXPECT_EQ(test::blocks_of(kSteadySteps, train), 0);
  test::blocks_of(kStepsBefore, evaluate);
  EXPECT_EQ(test::blocks_of(kSteadySteps, evaluate), 0);
}

template <typename Trainer, typename... Arguments>
auto making(Arguments... arguments) {
  return [=](const ContextPtr& context, Model& model, const OptimizerOptions& optimizer) {
    return std::make_unique<Trainer>(context, model, optimizer, 0, arguments...);
  };
}

INSTANTIATE_TEST_SUITE_P(
    Cpu, SteadyStep,
    testing::Values(
        SteadyCase{"Vgg11", "vgg11", {}, making<BpTrainer>()},
        SteadyCase{"ResNet18", "resnet18", {}, making<BpTrainer>()},
        SteadyCase{"MobileNetV2", "mobilenet_v2", {}, making<BpTrainer>()},
        SteadyCase{
            "Immediate", "resnet18", {.update = UpdateMoment::immediate}, making<BpTrainer>()},
        SteadyCase{"AdamWClippedAndChecked",
                   "resnet18",
                   {.kind = OptimizerKind::adamw, .max_gradient_norm = 1.0, .check_finite = true},
                   making<BpTrainer>()},
        SteadyCase{"Accumulate", "resnet18", {}, making<AccumulateTrainer>(kSteadyBatch / 2)},
        SteadyCase{"Checkpoint", "resnet18", {}, making<CheckpointTrainer>()}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::nn
