#include "nn/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/random.h"
#include "nn/layers.h"
#include "tests/nn/context.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int64_t kSteps = 10;

Tensor draw_gradient(const Parameter& parameter, std::int64_t step) {
  RandomStream random(random_key(static_cast<std::uint64_t>(step), Purpose::test),
                      hash_name(parameter.name));
  std::vector<float> values(static_cast<std::size_t>(parameter.numel()));
  for (float& value : values) value = random.normal();
  return Tensor::from_host<float>(parameter.value.context(), parameter.shape, values,
                                  Category::gradient);
}

void set_gradients(Module& module, std::int64_t step) {
  for (const Parameter* parameter : module.parameters())
    parameter->value.set_grad(draw_gradient(*parameter, step));
}

double rate_factor(std::int64_t step) { return 1.0 / static_cast<double>(step + 1); }

/// PyTorch's update rules, one element at a time, in double.
struct Naive {
  double w, m = 0, v = 0;

  void step(const OptimizerOptions& o, double rate, double decay, double g, std::int64_t t) {
    if (o.kind == OptimizerKind::adamw) {
      w -= rate * decay * w;
      m = o.beta1 * m + (1 - o.beta1) * g;
      v = o.beta2 * v + (1 - o.beta2) * g * g;
      const double m_hat = m / (1 - std::pow(o.beta1, static_cast<double>(t)));
      const double v_hat = v / (1 - std::pow(o.beta2, static_cast<double>(t)));
      w -= rate * m_hat / (std::sqrt(v_hat) + o.eps);
      return;
    }
    g += decay * w;
    m = t == 1 ? g : o.momentum * m + g;
    w -= rate * (o.nesterov ? g + o.momentum * m : m);
  }
};

void compare_with_naive(const OptimizerOptions& options) {
  const ContextPtr context = make_context();
  Sequential net;
  net.emplace<ConvBnAct>("c", "b", 3, 4, 3).emplace<Linear>("l", 4, 3);
  net.materialize(context, 1);
  std::vector<std::vector<Naive>> expected;
  for (const Parameter* parameter : net.parameters()) {
    expected.emplace_back();
    for (const float w : parameter->value.to_host<float>()) expected.back().push_back({w});
  }
  Optimizer optimizer(net.parameters(), options);
  for (std::int64_t step = 0; step < kSteps; ++step) {
    set_gradients(net, step);
    for (std::size_t p = 0; p < expected.size(); ++p) {
      const Parameter& parameter = *net.parameters()[p];
      const double decay =
          options.decay_norm_and_bias || parameter.decay ? options.weight_decay : 0.0;
      const std::vector<float> gradient = parameter.value.grad().to_host<float>();
      for (std::size_t i = 0; i < gradient.size(); ++i)
        expected[p][i].step(options, options.learning_rate * rate_factor(step), decay, gradient[i],
                            step + 1);
    }
    optimizer.step(rate_factor(step));
    optimizer.zero_grad();
  }
  EXPECT_EQ(optimizer.steps(), kSteps);
  // A step rounds some eight times: the weight itself (below 4) once, the update's terms, which are
  // below 16 times the rate, the rest.
  const double allowed =
      static_cast<double>(kSteps) * 0x1p-24 * (4 + 8 * 16 * options.learning_rate);
  for (std::size_t p = 0; p < expected.size(); ++p) {
    const Parameter& parameter = *net.parameters()[p];
    const std::vector<float> actual = parameter.value.to_host<float>();
    for (std::size_t i = 0; i < actual.size(); ++i)
      ASSERT_NEAR(actual[i], expected[p][i].w, allowed) << parameter.name << " " << i;
  }
}

TEST(Optimizer, SgdFollowsThePlainFormula) {
  compare_with_naive({.learning_rate = 0.1, .momentum = 0, .weight_decay = 0});
  compare_with_naive({.learning_rate = 0.1, .momentum = 0, .weight_decay = 0.1});
  compare_with_naive({.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.1});
  compare_with_naive(
      {.learning_rate = 0.1, .momentum = 0.9, .nesterov = true, .weight_decay = 0.1});
}

TEST(Optimizer, AdamWFollowsThePlainFormula) {
  compare_with_naive({.kind = OptimizerKind::adamw, .learning_rate = 0.01, .weight_decay = 0});
  compare_with_naive({.kind = OptimizerKind::adamw, .learning_rate = 0.01, .weight_decay = 0.5});
  compare_with_naive({.kind = OptimizerKind::adamw,
                      .learning_rate = 0.01,
                      .weight_decay = 0.1,
                      .beta1 = 0.5,
                      .beta2 = 0.9,
                      .eps = 1e-3});
}

TEST(Optimizer, DecayCanSpareNormsAndBiases) {
  compare_with_naive({.learning_rate = 0.1, .weight_decay = 0.5, .decay_norm_and_bias = false});
  compare_with_naive({.kind = OptimizerKind::adamw,
                      .learning_rate = 0.01,
                      .weight_decay = 0.5,
                      .decay_norm_and_bias = false});
}

TEST(Optimizer, StateIsAllocatedAtOnceAndFreedWithIt) {
  const ContextPtr context = make_context();
  Linear layer("l", 30, 20);
  layer.materialize(context, 1);
  const std::int64_t each = context->pool().granted(4 * 600) + context->pool().granted(4 * 20);
  const auto held = [&] {
    return context->pool().stats().by_category[static_cast<std::size_t>(Category::optimizer)];
  };
  for (const auto& [options, tensors] :
       {std::pair(OptimizerOptions{.momentum = 0}, 0), std::pair(OptimizerOptions{}, 1),
        std::pair(OptimizerOptions{.kind = OptimizerKind::adamw}, 2)}) {
    Optimizer optimizer(layer.parameters(), options);
    EXPECT_EQ(held(), tensors * each);
    set_gradients(layer, 0);
    const std::int64_t allocations = context->pool().stats().allocations;
    optimizer.step();
    EXPECT_EQ(context->pool().stats().allocations, allocations);
    optimizer.zero_grad();
    EXPECT_EQ(context->pool().stats().by_category[static_cast<std::size_t>(Category::gradient)], 0);
  }
  EXPECT_EQ(held(), 0);
}

// What happens to a block: it leaves the device in mid-training and comes back.
void interrupt(const OptimizerOptions& options) {
  StateDict results[2];
  for (const bool interrupted : {false, true}) {
    const ContextPtr context = make_context();
    Linear layer("l", 9, 7);
    layer.materialize(context, 1);
    auto optimizer = std::make_unique<Optimizer>(layer.parameters(), options);
    for (std::int64_t step = 0; step < kSteps; ++step) {
      if (interrupted && (step == 0 || step == 4)) {
        StateDict state;
        layer.save(state);
        optimizer->save_state(state);
        optimizer.reset();
        layer.release();
        EXPECT_EQ(context->pool().stats().live, 0);
        layer.materialize(context, 99);
        layer.load(state);
        optimizer = std::make_unique<Optimizer>(layer.parameters(), options);
        optimizer->load_state(state);
        EXPECT_EQ(optimizer->steps(), step);
      }
      set_gradients(layer, step);
      optimizer->step();
      optimizer->zero_grad();
    }
    layer.save(results[interrupted]);
    optimizer->save_state(results[interrupted]);
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST(Optimizer, ContinuesBitForBitFromASavedState) {
  interrupt({.momentum = 0});
  interrupt({.nesterov = true});
  interrupt({.kind = OptimizerKind::adamw});
}

TEST(Optimizer, StateIsNamedAfterTheParameters) {
  const ContextPtr context = make_context();
  Linear layer("l", 2, 3);
  layer.materialize(context, 1);
  StateDict sgd, adamw;
  Optimizer(layer.parameters(), {}).save_state(sgd);
  Optimizer(layer.parameters(), {.kind = OptimizerKind::adamw}).save_state(adamw);
  const auto names = [](const StateDict& state) {
    std::vector<std::string> result;
    for (const auto& [name, value] : state) result.push_back(name);
    return result;
  };
  EXPECT_THAT(names(sgd),
              testing::ElementsAre("momentum.l.bias", "momentum.l.weight", "steps.l.weight"));
  EXPECT_THAT(names(adamw),
              testing::ElementsAre("exp_avg.l.bias", "exp_avg.l.weight", "exp_avg_sq.l.bias",
                                   "exp_avg_sq.l.weight", "steps.l.weight"));
}

TEST(Optimizer, CountsStepsBeyondWhatAFloatCounts) {
  const ContextPtr context = make_context();
  Linear layer("l", 2, 3, false);
  layer.materialize(context, 1);
  Optimizer optimizer(layer.parameters(), {.momentum = 0});
  optimizer.load_state({{"steps.l.weight", {{2}, {3, 0x1p24F - 1}}}});
  EXPECT_EQ(optimizer.steps(), (std::int64_t{4} << 24) - 1);
  set_gradients(layer, 0);
  optimizer.step();
  StateDict state;
  optimizer.save_state(state);
  EXPECT_EQ(state.at("steps.l.weight").values, (std::vector<float>{4, 0}));
}

TEST(Optimizer, ErrorsNameTheThingTheRuleAndTheValue) {
  const ContextPtr context = make_context();
  Linear layer("l", 2, 3);
  EXPECT_THAT([&] { Optimizer(layer.parameters(), {}); },
              ThrowsMessage<Error>(HasSubstr("l.weight is on no device")));
  layer.materialize(context, 1);
  const auto make = [&](const OptimizerOptions& options) {
    Optimizer(layer.parameters(), options);
  };
  EXPECT_THAT([&] { make({.learning_rate = -1}); },
              ThrowsMessage<Error>(HasSubstr("learning_rate must be above 0, got -1")));
  EXPECT_THAT([&] { make({.momentum = 1}); },
              ThrowsMessage<Error>(HasSubstr("momentum must be in [0, 1), got 1")));
  EXPECT_THAT([&] { make({.momentum = 0, .nesterov = true}); },
              ThrowsMessage<Error>(HasSubstr("nesterov needs a momentum")));
  EXPECT_THAT([&] { make({.weight_decay = std::nan("")}); },
              ThrowsMessage<Error>(HasSubstr("weight_decay must not be negative, got nan")));
  EXPECT_THAT([&] { make({.beta2 = 1}); }, ThrowsMessage<Error>(HasSubstr("beta2")));
  EXPECT_THAT([&] { make({.eps = 0}); }, ThrowsMessage<Error>(HasSubstr("eps must be above 0")));
  EXPECT_THAT([] { Optimizer({}, {}); }, ThrowsMessage<Error>(HasSubstr("no parameter")));
  EXPECT_THAT([] { parse_optimizer("adam"); },
              ThrowsMessage<Error>(HasSubstr("got \"adam\"; did you mean adamw?")));
  EXPECT_EQ(parse_optimizer("sgd"), OptimizerKind::sgd);
  BatchNorm bn("b", 3);
  bn.materialize(context, 1);
  EXPECT_THAT([&] { Optimizer(bn.all(), {}); },
              ThrowsMessage<Error>(HasSubstr("b.running_mean is a buffer")));

  Optimizer optimizer(layer.parameters(), {});
  const auto before = layer.parameters()[0]->value.to_host<float>();
  layer.parameters()[0]->value.set_grad(draw_gradient(*layer.parameters()[0], 0));
  EXPECT_THAT([&] { optimizer.step(); }, ThrowsMessage<Error>(HasSubstr("l.bias has no gradient")));
  EXPECT_EQ(layer.parameters()[0]->value.to_host<float>(), before);
  EXPECT_EQ(optimizer.steps(), 0);
  StateDict state;
  optimizer.save_state(state);
  const auto load = [&](const StateDict& from) { optimizer.load_state(from); };
  StateDict wrong = state;
  wrong.erase("momentum.l.bias");
  EXPECT_THAT([&] { load(wrong); },
              ThrowsMessage<Error>(HasSubstr("momentum.l.bias [3] is missing")));
  wrong = state;
  wrong["momentum.l.bias"].shape = {1, 3};
  EXPECT_THAT([&] { load(wrong); }, ThrowsMessage<Error>(HasSubstr("must be [3], got [1,3]")));
  wrong = state;
  wrong["steps.l.weight"].values[0] = 0.5F;
  EXPECT_THAT([&] { load(wrong); }, ThrowsMessage<Error>(HasSubstr("whole numbers")));
}

std::vector<test::DevicePath> f32_paths() {
  std::vector<test::DevicePath> paths = test::device_paths();
  std::erase_if(paths, [](const test::DevicePath& path) { return path.dtype != DType::f32; });
  return paths;
}

class GradientCheck : public testing::TestWithParam<test::DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
};

void spoil(const Parameter& parameter, std::int64_t at, float value) {
  std::vector<float> values = parameter.value.grad().to_host<float>();
  values[static_cast<std::size_t>(at)] = value;
  Tensor gradient = parameter.value.grad();
  gradient.copy_from_host(values.data());
}

TEST_P(GradientCheck, NamesTheFirstThatIsNotFiniteAndChangesNothing) {
  const ContextPtr context = GetParam().context();
  Sequential net;
  net.emplace<ConvBnAct>("c", "b", 3, 4, 3).emplace<Linear>("l", 4, 3);
  net.materialize(context, 1);
  Optimizer optimizer(net.parameters(), {.max_gradient_norm = 0.5, .check_finite = true});
  set_gradients(net, 0);
  EXPECT_NO_THROW(optimizer.step());
  const auto everything = [&] {
    StateDict state;
    net.save(state);
    optimizer.save_state(state);
    for (const Parameter* parameter : net.parameters())
      state["gradient of " + parameter->name] = {parameter->shape,
                                                 parameter->value.grad().to_host<float>()};
    return state;
  };
  const std::vector<Parameter*> parameters = net.parameters();
  for (std::size_t p = 0; p < parameters.size(); ++p)
    for (const float bad : {std::numeric_limits<float>::infinity(), -HUGE_VALF, std::nanf("")}) {
      set_gradients(net, 1);
      spoil(*parameters[p], parameters[p]->numel() - 1, bad);
      spoil(*parameters.back(), 0, bad);
      StateDict before = everything();
      const std::string text = test::error_text([&] { optimizer.step(); });
      EXPECT_EQ(text, fmt::format("optimizer: the gradient of {} {} is not finite in step 2",
                                  parameters[p]->name, parameters[p]->shape.str()));
      StateDict after = everything();
      for (const auto& [name, value] : before)
        if (!name.starts_with("gradient")) {
          EXPECT_EQ(after.at(name), value) << name;
        }
      // Of gradients those that are whole: a NaN is not equal to itself.
      for (std::size_t i = 0; i + 1 < parameters.size(); ++i) {
        const std::string name = "gradient of " + parameters[i]->name;
        if (i != p) {
          EXPECT_EQ(after.at(name), before.at(name)) << name;
        }
      }
    }
  EXPECT_EQ(optimizer.steps(), 1);
  set_gradients(net, 1);
  EXPECT_NO_THROW(optimizer.step());
}

TEST_P(GradientCheck, IsOffUnlessAskedFor) {
  const ContextPtr context = GetParam().context();
  Linear layer("l", 4, 3);
  layer.materialize(context, 1);
  Optimizer optimizer(layer.parameters(), {});
  set_gradients(layer, 0);
  spoil(*layer.parameters()[0], 0, std::nanf(""));
  EXPECT_NO_THROW(optimizer.step());
}

TEST_P(GradientCheck, ThePlannersDeviceHasNoValuesToRefuse) {
  const ContextPtr context = GetParam().context();
  const auto peak = [](const ContextPtr& device) {
    Linear layer("l", 4, 3);
    layer.materialize(device, 1);
    Optimizer optimizer(layer.parameters(), {.check_finite = true});
    for (const Parameter* parameter : layer.parameters())
      parameter->value.set_grad(
          Tensor::full(device, parameter->shape, 1, DType::f32, Category::gradient));
    device->pool().reset_peak();
    optimizer.step();
    return device->pool().stats().peak_reserved;
  };
  EXPECT_EQ(peak(make_meta_context(context->options())), peak(context));
}

INSTANTIATE_TEST_SUITE_P(Devices, GradientCheck, testing::ValuesIn(f32_paths()),
                         [](const auto& info) { return info.param.name; });

class GradientClipping : public testing::TestWithParam<test::DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
};

/// A net after one step of gradients `scale` times those of step 1, and their norm.
struct Stepped {
  std::vector<float> weights;
  double norm = 0;
};

Stepped step_once(const ContextPtr& context, double clip, double scale) {
  Sequential net;
  net.emplace<ConvBnAct>("c", "b", 3, 4, 3).emplace<Linear>("l", 4, 3);
  net.materialize(context, 1);
  Optimizer optimizer(net.parameters(),
                      {.momentum = 0, .weight_decay = 0, .max_gradient_norm = clip});
  double squares = 0;
  for (const Parameter* parameter : net.parameters()) {
    std::vector<float> values = draw_gradient(*parameter, 1).to_host<float>();
    for (float& value : values) {
      value = static_cast<float>(scale * static_cast<double>(value));
      squares += static_cast<double>(value) * static_cast<double>(value);
    }
    parameter->value.set_grad(
        Tensor::from_host<float>(context, parameter->shape, values, Category::gradient));
  }
  optimizer.step();
  Stepped result{{}, std::sqrt(squares)};
  for (const Parameter* parameter : net.parameters())
    for (const float value : parameter->value.to_host<float>()) result.weights.push_back(value);
  return result;
}

TEST_P(GradientClipping, ScalesAllGradientsToTheNormAllowed) {
  const ContextPtr context = GetParam().context();
  const Stepped free = step_once(context, 0, 1), still = step_once(context, 0, 0);
  const double allowed = free.norm / 4;
  const Stepped clipped = step_once(context, allowed, 1);
  const double factor = allowed / (free.norm + 1e-6);
  for (std::size_t i = 0; i < free.weights.size(); ++i) {
    const double whole = double{free.weights[i]} - double{still.weights[i]};
    const double part = double{clipped.weights[i]} - double{still.weights[i]};
    EXPECT_NEAR(part, factor * whole, 4 * 0x1p-24 * (1 + std::abs(whole))) << i;
  }
}

TEST_P(GradientClipping, LeavesSmallGradientsAsTheyAre) {
  const ContextPtr context = GetParam().context();
  const Stepped free = step_once(context, 0, 1);
  EXPECT_EQ(step_once(context, 2 * free.norm, 1).weights, free.weights);
}

TEST_P(GradientClipping, ANormThatIsNotFiniteChangesNothing) {
  EXPECT_THAT([&] { step_once(GetParam().context(), 1, 1e38); },
              ThrowsMessage<Error>(HasSubstr("optimizer: the gradients' norm is inf")));
}

INSTANTIATE_TEST_SUITE_P(Devices, GradientClipping, testing::ValuesIn(f32_paths()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::nn
