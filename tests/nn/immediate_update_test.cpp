// Updates within the backward pass against updates behind it: the same bits in less memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "engine/memory/trace.h"
#include "nn/accumulate_trainer.h"
#include "nn/bp_trainer.h"
#include "nn/checkpoint_trainer.h"
#include "nn/models/registry.h"
#include "tests/nn/context.h"
#include "tests/nn/trainers.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kUpdateSeed = 2;

OptimizerOptions updating(OptimizerOptions options, std::optional<UpdateMoment> moment) {
  options.update = moment;
  return options;
}

struct Updated {
  std::vector<double> losses;
  StateDict weights, optimizer;
  std::int64_t steps = 0, peak = 0, most_gradients = 0;
};

void expect_same_updates(const Updated& actual, const Updated& expected) {
  EXPECT_EQ(actual.losses, expected.losses);
  EXPECT_TRUE(actual.weights == expected.weights);
  EXPECT_TRUE(actual.optimizer == expected.optimizer);
}

/// Most bytes of gradients of parameters at a time.
std::int64_t most_gradients(const MemoryTrace& trace) {
  std::int64_t held = 0, most = 0;
  for (const MemoryEvent& event : trace.events()) {
    if (event.category != Category::gradient) continue;
    held += event.action == MemoryAction::allocate ? event.granted : -event.granted;
    most = std::max(most, held);
  }
  return most;
}

/// Four steps at falling rates; between the second and the third the trainer goes and another
/// takes up its state.
template <typename Trainer, typename... Arguments>
Updated step_with(Model& model, const OptimizerOptions& optimizer, Arguments... arguments) {
  const ContextPtr context = make_context();
  MemoryTrace trace;
  context->pool().set_trace(&trace);
  Updated trained;
  for (std::uint64_t half = 0; half < 2; ++half) {
    Trainer trainer(context, model, optimizer, kUpdateSeed, arguments...);
    if (half > 0) trainer.restore(trained.weights, trained.optimizer);
    for (std::uint64_t step = 2 * half; step < 2 * half + 2; ++step) {
      const StepOptions options{.rate_factor = 1.0 / static_cast<double>(step + 1),
                                .dropout_key = 40 + step};
      trained.losses.push_back(
          trainer.train_batch(random_batch(model.options(), 4, step), options).front().loss);
    }
    trainer.save(trained.weights, trained.optimizer);
  }
  context->pool().set_trace(nullptr);
  trained.peak = context->pool().stats().peak_reserved;
  trained.most_gradients = most_gradients(trace);
  return trained;
}

struct UpdateCase {
  const char* name;
  OptimizerOptions optimizer;
};

const std::vector<UpdateCase> kOptimizers{
    {"sgd", {.learning_rate = 0.02, .momentum = 0}},
    {"momentum", {.learning_rate = 0.02, .decay_norm_and_bias = false}},
    {"nesterov", {.learning_rate = 0.02, .nesterov = true, .weight_decay = 0.01}},
    {"adamw",
     {.kind = OptimizerKind::adamw,
      .learning_rate = 2e-3,
      .weight_decay = 0.1,
      .decay_norm_and_bias = false}}};

class ImmediateUpdate : public testing::TestWithParam<std::tuple<const char*, UpdateCase>> {
 protected:
  std::unique_ptr<Model> model() const {
    return make_model(std::get<0>(GetParam()),
                      {.input = {16, 16, 3}, .width = 0.25, .dropout = 0.3});
  }
  OptimizerOptions options(std::optional<UpdateMoment> moment) const {
    return updating(std::get<1>(GetParam()).optimizer, moment);
  }
};

TEST_P(ImmediateUpdate, HasTheBitsOfUpdatesTogether) {
  const auto net = model();
  const Updated together = step_with<BpTrainer>(*net, options(UpdateMoment::together));
  const Updated immediate = step_with<BpTrainer>(*net, options(UpdateMoment::immediate));
  expect_same_updates(immediate, together);
  EXPECT_LT(immediate.peak, together.peak);
  // One node's: of a convolution and its bias, of a batch norm, of a linear layer. The largest
  // filters come in parts.
  std::int64_t all = 0, largest = 0;
  for (const Parameter* parameter : net->parameters()) {
    if (parameter->buffer) continue;
    all += 4 * parameter->numel();
    largest = std::max(largest, 4 * parameter->numel());
  }
  EXPECT_GE(together.most_gradients, all);
  EXPECT_LT(immediate.most_gradients, largest);
}

TEST_P(ImmediateUpdate, HasThemWhereActivationsAreComputedAgain) {
  const auto net = model();
  const Updated together = step_with<CheckpointTrainer>(*net, options(std::nullopt));
  const Updated immediate = step_with<CheckpointTrainer>(*net, options(UpdateMoment::immediate));
  expect_same_updates(immediate, together);
  EXPECT_LT(immediate.peak, together.peak);
}

INSTANTIATE_TEST_SUITE_P(Models, ImmediateUpdate,
                         testing::Combine(testing::Values("vgg11", "resnet18", "mobilenet_v1"),
                                          testing::ValuesIn(kOptimizers)),
                         [](const auto& info) {
                           return fmt::format("{}_{}", std::get<0>(info.param),
                                              std::get<1>(info.param).name);
                         });

class UpdateMoments : public testing::Test {
 protected:
  template <typename Trainer, typename... Arguments>
  std::int64_t gradients(const OptimizerOptions& options, Arguments... arguments) const {
    return step_with<Trainer>(*model_, options, arguments...).most_gradients;
  }

  std::unique_ptr<Model> model_ = make_model("vgg11", {.input = {16, 16, 3}, .width = 0.0625});
  const OptimizerOptions none_;
};

TEST_F(UpdateMoments, WholeNetsUpdateTogetherUnlessTold) {
  EXPECT_EQ(gradients<BpTrainer>(none_),
            gradients<BpTrainer>(updating(none_, UpdateMoment::together)));
  EXPECT_GT(gradients<BpTrainer>(none_),
            gradients<BpTrainer>(updating(none_, UpdateMoment::immediate)));
}

// All gradients are looked at before one is used.
TEST_F(UpdateMoments, ClippingAndChecksTakeAllGradients) {
  for (const OptimizerOptions& options :
       {OptimizerOptions{.max_gradient_norm = 0.1}, OptimizerOptions{.check_finite = true}}) {
    EXPECT_EQ(update_moment(updating(options, UpdateMoment::immediate), UpdateMoment::immediate),
              UpdateMoment::together);
    const Updated together = step_with<BpTrainer>(*model_, options);
    const Updated asked = step_with<BpTrainer>(*model_, updating(options, UpdateMoment::immediate));
    expect_same_updates(asked, together);
    EXPECT_EQ(asked.peak, together.peak);
    EXPECT_EQ(asked.most_gradients, together.most_gradients);
  }
}

TEST_F(UpdateMoments, AccumulationTakesThemTooAsNoneIsFinishedBefore) {
  const std::int64_t micro_batch = 2;
  const Updated together = step_with<AccumulateTrainer>(*model_, none_, micro_batch);
  const Updated asked =
      step_with<AccumulateTrainer>(*model_, updating(none_, UpdateMoment::immediate), micro_batch);
  expect_same_updates(asked, together);
  EXPECT_EQ(asked.peak, together.peak);
}

TEST_F(UpdateMoments, AreParsedByName) {
  for (const UpdateMoment moment : {UpdateMoment::together, UpdateMoment::immediate})
    EXPECT_EQ(parse_update_moment(to_string(moment)), moment);
  EXPECT_THAT(test::error_text([] { parse_update_moment("imediate"); }),
              HasSubstr("did you mean immediate?"));
}

TEST_F(UpdateMoments, ALossThatIsNotFiniteChangesNoParameter) {
  BpTrainer trainer(make_context(), *model_, updating(none_, UpdateMoment::immediate), kUpdateSeed);
  Batch batch = random_batch(model_->options(), 4);
  trainer.train_batch(batch, {});
  const auto values = [&] {
    std::vector<std::vector<float>> all;
    for (const Parameter* parameter : model_->parameters())
      if (!parameter->buffer) all.push_back(parameter->value.to_host<float>());
    return all;
  };
  const auto before = values();
  batch.images[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(test::error_text([&] { trainer.train_batch(batch, {}); }), HasSubstr("the loss of"));
  EXPECT_EQ(values(), before);
}

/// The same layer twice.
class Repeated : public Module {
 public:
  Tensor forward(const Pass& pass, const Tensor& x) override {
    return layer_.forward(pass, layer_.forward(pass, x));
  }
  Shape output_shape(const Shape& x) const override { return x; }
  std::int64_t flops(const Shape& x) const override { return 2 * layer_.flops(x); }
  void visit(const std::function<void(Parameter&)>& visitor) override { layer_.visit(visitor); }

 private:
  Linear layer_{"repeated", 6, 6};
};

TEST(ImmediateUpdates, ASharedParameterIsUpdatedOnceByAllOfItsGradient) {
  const auto weights = [](UpdateMoment moment) {
    const ContextPtr context = make_context();
    Repeated net;
    net.materialize(context, 1);
    Optimizer optimizer(net.parameters(), updating({.learning_rate = 0.1}, moment));
    for (int step = 0; step < 3; ++step) {
      const std::vector<float> values{1, 2, 3, -1, -2, 0.5F, 0, 1, 1, 1, -3, 2};
      const std::vector<std::int32_t> labels{0, 4};
      train_step({"repeated", &net, nullptr, &optimizer},
                 Tensor::from_host<float>(context, {2, 6}, values),
                 Tensor::from_host<std::int32_t>(context, {2}, labels), {});
    }
    EXPECT_EQ(optimizer.steps(), 3);
    return state_of(net);
  };
  EXPECT_TRUE(weights(UpdateMoment::immediate) == weights(UpdateMoment::together));
}

class PartsOfAStep : public testing::Test {
 protected:
  void SetUp() override { layer_.materialize(context_, 1); }
  void set_gradients() {
    for (const Parameter* parameter : layer_.parameters())
      parameter->value.set_grad(
          Tensor::full(context_, parameter->shape, 0.5, DType::f32, Category::gradient));
  }
  Tensor value(std::size_t i) { return layer_.parameters()[i]->value; }

  ContextPtr context_ = make_context();
  Linear layer_{"l", 3, 2};
};

TEST_F(PartsOfAStep, OneParameterAtATimeMakesTheSameStep) {
  const auto run = [&](bool in_parts) {
    layer_.release();
    layer_.materialize(context_, 1);
    Optimizer optimizer(layer_.parameters(),
                        {.kind = OptimizerKind::adamw, .update = UpdateMoment::immediate});
    const Tensor stranger = Tensor::full(context_, {2}, 1);
    for (int step = 0; step < 3; ++step) {
      set_gradients();
      if (in_parts) {
        optimizer.update_now(std::vector<Tensor>{value(1), stranger}, 0.5);
        EXPECT_FALSE(value(1).grad());
        EXPECT_TRUE(value(0).grad());
        EXPECT_EQ(optimizer.steps(), step);
      }
      optimizer.step(0.5);
      optimizer.zero_grad();
      EXPECT_EQ(optimizer.steps(), step + 1);
    }
    StateDict state = state_of(layer_);
    optimizer.save_state(state);
    return state;
  };
  EXPECT_TRUE(run(true) == run(false));
}

TEST_F(PartsOfAStep, SoDoSomeRowsAtATime) {
  const auto run = [&](bool in_parts) {
    layer_.release();
    layer_.materialize(context_, 1);
    Optimizer optimizer(layer_.parameters(),
                        {.learning_rate = 0.1, .update = UpdateMoment::immediate});
    for (int step = 0; step < 3; ++step) {
      set_gradients();
      if (in_parts) {
        value(0).clear_grad();
        const Tensor row = Tensor::full(context_, {1, 3}, 0.5, DType::f32, Category::gradient);
        optimizer.update_rows_now(value(0), 0, row, 0.5);
        EXPECT_THAT(test::error_text([&] { optimizer.step(0.5); }),
                    HasSubstr("l.weight has no gradient"));
        EXPECT_THAT(test::error_text([&] { optimizer.update_rows_now(value(0), 0, row, 0.5); }),
                    HasSubstr("from row 0 on, when 1 rows are updated"));
        optimizer.update_rows_now(value(0), 1, row, 0.5);
      }
      optimizer.step(0.5);
      optimizer.zero_grad();
    }
    StateDict state = state_of(layer_);
    optimizer.save_state(state);
    return state;
  };
  EXPECT_TRUE(run(true) == run(false));
}

TEST_F(PartsOfAStep, SayWhatIsWrong) {
  Optimizer optimizer(layer_.parameters(), {.update = UpdateMoment::immediate});
  const std::vector<Tensor> bias{value(1)};
  EXPECT_EQ(test::error_text([&] { optimizer.update_now(bias, 1); }),
            "optimizer: l.bias has no gradient");
  set_gradients();
  EXPECT_THAT(test::error_text([&] { optimizer.update_now(bias, -1); }),
              HasSubstr("must not be negative"));
  optimizer.update_now(bias, 1);
  EXPECT_EQ(test::error_text([&] { optimizer.update_now(bias, 1); }),
            "optimizer: l.bias was updated by this step already");
  value(0).clear_grad();
  EXPECT_EQ(test::error_text([&] { optimizer.step(); }), "optimizer: l.weight has no gradient");
  // The step that was begun ends with its gradients.
  optimizer.zero_grad();
  EXPECT_EQ(test::error_text([&] { optimizer.step(); }), "optimizer: l.weight has no gradient");
  set_gradients();
  EXPECT_NO_THROW(optimizer.step());
  EXPECT_EQ(optimizer.steps(), 1);

  Optimizer together(layer_.parameters(), {});
  EXPECT_THAT(test::error_text([&] { together.update_now(bias, 1); }), HasSubstr("together"));
}

}  // namespace
}  // namespace nf::nn
