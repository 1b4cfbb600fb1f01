#include "nn/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/random.h"
#include "nn/layers.h"
#include "tests/nn/context.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::unique_ptr<Sequential> make_net() {
  auto net = std::make_unique<Sequential>();
  net->emplace<ConvBnAct>("a.conv", "a.bn", 3, 8, 3)
      .emplace<AdaptiveAvgPool>(1, 1)
      .emplace<Flatten>()
      .emplace<Linear>("fc", 8, 5);
  return net;
}

StateDict saved(const Module& module) {
  StateDict state;
  module.save(state);
  return state;
}

TEST(Module, DescribesItselfWithoutMemory) {
  const auto net = make_net();
  EXPECT_EQ(net->parameter_count(), 3 * 3 * 3 * 8 + 8 + 8 + 8 * 5 + 5);
  EXPECT_EQ(net->buffer_count(), 8 + 8);
  EXPECT_EQ(net->parameters().size(), 5U);
  EXPECT_EQ(net->all().size(), 7U);
  EXPECT_FALSE(net->materialized());
  EXPECT_EQ(net->output_shape({7, 9, 9, 3}), Shape({7, 5}));
}

TEST(Module, MaterializeAllocatesEachCategoryAndReleaseFreesAll) {
  const ContextPtr context = make_context();
  const auto net = make_net();
  net->materialize(context, 1);
  EXPECT_TRUE(net->materialized());
  const PoolStats stats = context->pool().stats();
  std::int64_t parameters = 0, buffers = 0;
  for (const Parameter* parameter : net->all()) {
    EXPECT_EQ(parameter->value.shape(), parameter->shape);
    EXPECT_EQ(parameter->value.requires_grad(), !parameter->buffer) << parameter->name;
    (parameter->buffer ? buffers : parameters) += context->pool().granted(4 * parameter->numel());
  }
  EXPECT_EQ(stats.by_category[static_cast<std::size_t>(Category::parameter)], parameters);
  EXPECT_EQ(stats.by_category[static_cast<std::size_t>(Category::buffer)], buffers);
  for (const Parameter* parameter : net->parameters())
    parameter->value.set_grad(parameter->value.clone(Category::gradient));
  net->release();
  EXPECT_FALSE(net->materialized());
  EXPECT_EQ(context->pool().stats().live, 0);
}

TEST(Module, MetaContextAsksForTheSameMemory) {
  const ContextPtr context = make_context();
  const ContextPtr meta = make_meta_context({.budget = std::int64_t{64} << 20});
  const auto net = make_net(), planned = make_net();
  net->materialize(context, 1);
  planned->materialize(meta, 1);
  EXPECT_EQ(meta->pool().stats().live, context->pool().stats().live);
  EXPECT_EQ(meta->pool().stats().peak_reserved, context->pool().stats().peak_reserved);
  StateDict state;
  EXPECT_THAT([&] { planned->save(state); }, ThrowsMessage<Error>(HasSubstr("meta")));
}

TEST(Module, FirstValuesDependOnSeedAndNameAlone) {
  const ContextPtr context = make_context();
  const auto net = make_net();
  net->materialize(context, 3);
  const StateDict first = saved(*net);
  // Another net, in which the same layer comes after one that draws numbers too.
  Sequential other;
  other.emplace<Linear>("before", 6, 8).emplace<Linear>("fc", 8, 5).emplace<Linear>("after", 8, 5);
  other.materialize(context, 3);
  const StateDict second = saved(other);
  EXPECT_EQ(first.at("fc.weight"), second.at("fc.weight"));
  EXPECT_EQ(first.at("fc.bias"), second.at("fc.bias"));
  EXPECT_NE(second.at("fc.weight"), second.at("after.weight"));
  net->release();
  net->materialize(context, 3);
  EXPECT_EQ(saved(*net), first);
  net->release();
  net->materialize(context, 4);
  EXPECT_NE(saved(*net).at("fc.weight"), first.at("fc.weight"));
}

class FirstValues : public testing::TestWithParam<test::DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
};

// Whoever repeats a run by its seed relies on these bits.
TEST_P(FirstValues, AreTheSameBitsOnEveryDevice) {
  for (const int threads : {1, 3}) {
    const auto net = make_net();
    net->materialize(GetParam().context(threads), 3);
    const StateDict state = saved(*net);
    const std::vector<float>& conv = state.at("a.conv.weight").values;
    const std::vector<float>& linear = state.at("fc.weight").values;
    EXPECT_EQ(conv.front(), 0x1.4b7294p-3F);
    EXPECT_EQ(conv.back(), -0x1.b83b48p-3F);
    RandomStream random(random_key(3, Purpose::init), hash_name("fc.weight"));
    const auto bound = static_cast<float>(1 / std::sqrt(8.0));
    for (const float value : linear) EXPECT_EQ(value, bound * (2.0F * random.uniform() - 1.0F));
    const auto same = make_net();
    same->materialize(make_context(), 3);
    EXPECT_EQ(state, saved(*same));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, FirstValues, testing::ValuesIn(test::device_paths()),
                         [](const auto& info) { return info.param.name; });

TEST(Module, FirstValuesHaveTheirDistribution) {
  const ContextPtr context = make_context();
  const std::int64_t in = 64, out = 128, kernel = 3;
  Sequential net;
  net.emplace<ConvBnAct>("conv", "bn", in, out, kernel).emplace<Linear>("fc", 400, 300);
  net.materialize(context, 5);
  const StateDict state = saved(net);
  const auto moments = [](const std::vector<float>& values) {
    double sum = 0, squares = 0;
    for (const float v : values) {
      sum += v;
      squares += static_cast<double>(v) * v;
    }
    const auto n = static_cast<double>(values.size());
    return std::pair(sum / n, squares / n);
  };
  // Five standard errors: sqrt(v/n) of the mean, v sqrt(2/n) (normal) or v sqrt(0.8/n) (uniform,
  // whose fourth moment is 1.8 v^2) of the variance.
  const double n = static_cast<double>(in * out * kernel * kernel);
  const double variance = 2.0 / static_cast<double>(out * kernel * kernel);
  const auto [mean, second] = moments(state.at("conv.weight").values);
  EXPECT_NEAR(mean, 0.0, 5 * std::sqrt(variance / n));
  EXPECT_NEAR(second, variance, 5 * variance * std::sqrt(2 / n));
  const std::vector<float>& linear = state.at("fc.weight").values;
  const double bound = 1 / std::sqrt(400.0), linear_variance = bound * bound / 3;
  const auto m = static_cast<double>(linear.size());
  const auto [linear_mean, linear_second] = moments(linear);
  EXPECT_NEAR(linear_mean, 0.0, 5 * std::sqrt(linear_variance / m));
  EXPECT_NEAR(linear_second, linear_variance, 5 * linear_variance * std::sqrt(0.8 / m));
  for (const float v : linear) EXPECT_LE(std::abs(v), static_cast<float>(bound));
  for (const float v : state.at("bn.weight").values) EXPECT_EQ(v, 1.0F);
  for (const float v : state.at("bn.bias").values) EXPECT_EQ(v, 0.0F);
  for (const float v : state.at("bn.running_mean").values) EXPECT_EQ(v, 0.0F);
  for (const float v : state.at("bn.running_var").values) EXPECT_EQ(v, 1.0F);
}

TEST(Module, SaveAndLoadRoundTripAndIgnoreOtherNames) {
  const ContextPtr context = make_context();
  const auto net = make_net(), copy = make_net();
  net->materialize(context, 1);
  StateDict state = saved(*net);
  EXPECT_EQ(state.size(), 7U);
  state["a.bn.num_batches_tracked"] = {Shape{}, {12.0F}};
  copy->materialize(context, 2);
  EXPECT_NE(saved(*copy), saved(*net));
  copy->load(state);
  EXPECT_EQ(saved(*copy), saved(*net));
}

TEST(Module, LoadNamesWhatIsWrongAndChangesNothing) {
  const ContextPtr context = make_context();
  const auto net = make_net(), other = make_net();
  net->materialize(context, 1);
  other->materialize(context, 2);
  const StateDict before = saved(*net);
  StateDict missing = saved(*other);
  missing.erase("fc.bias");
  EXPECT_THAT([&] { net->load(missing); },
              ThrowsMessage<Error>(HasSubstr("parameter fc.bias [5] is missing")));
  StateDict wrong = saved(*other);
  wrong["fc.weight"].shape = {8, 5};
  EXPECT_THAT([&] { net->load(wrong); },
              ThrowsMessage<Error>(HasSubstr("parameter fc.weight must be [5,8], got [8,5]")));
  StateDict few = saved(*other);
  few["fc.bias"].values.pop_back();
  EXPECT_THAT([&] { net->load(few); }, ThrowsMessage<Error>(HasSubstr("5 values, got 4")));
  EXPECT_EQ(saved(*net), before);
  net->release();
  EXPECT_THAT([&] { net->load(before); }, ThrowsMessage<Error>(HasSubstr("on no device")));
}

TEST(Module, MaterializeLooksAtTheStateBeforeItTakesMemory) {
  const ContextPtr context = make_context(), meta = make_meta_context({});
  const auto net = make_net(), other = make_net();
  other->materialize(context, 1);
  const StateDict good = saved(*other);
  other->release();
  StateDict missing = good, wrong = good;
  missing.erase("fc.bias");
  wrong["fc.weight"].shape = {8, 5};
  for (const ContextPtr& on : {context, meta}) {
    const std::int64_t allocations = on->pool().stats().allocations;
    EXPECT_THAT([&] { net->materialize(on, missing); },
                ThrowsMessage<Error>(HasSubstr("parameter fc.bias [5] is missing")));
    EXPECT_THAT([&] { net->materialize(on, wrong); },
                ThrowsMessage<Error>(HasSubstr("parameter fc.weight must be [5,8], got [8,5]")));
    EXPECT_EQ(on->pool().stats().allocations, allocations);
    net->materialize(on, good);
    EXPECT_TRUE(net->materialized());
    net->release();
  }
}

TEST(Module, MaterializeIsAllOrNothing) {
  const ContextPtr context = Context::create({.budget = 64 << 10});
  Sequential net;
  net.emplace<Linear>("small", 8, 8).emplace<Linear>("large", 8, 1 << 20);
  EXPECT_THROW(net.materialize(context, 1), OutOfBudget);
  EXPECT_EQ(context->pool().stats().live, 0);
  Linear layer("fc", 4, 4);
  layer.materialize(context, 1);
  EXPECT_THAT([&] { layer.materialize(context, 1); },
              ThrowsMessage<Error>(HasSubstr("fc.weight is on a device already")));
  EXPECT_TRUE(layer.materialized());
}

}  // namespace
}  // namespace nf::nn
