#include "nn/layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "engine/ops/add.h"
#include "engine/ops/conv2d.h"
#include "engine/ops/relu.h"
#include "engine/random.h"
#include "nn/model.h"
#include "tests/nn/context.h"

namespace nf::nn {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Tensor random_tensor(const ContextPtr& context, const Shape& shape, std::uint64_t stream) {
  RandomStream random(random_key(11, Purpose::test), stream);
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  for (float& value : values) value = random.normal();
  return Tensor::from_host<float>(context, shape, values);
}

struct Case {
  std::string label;
  std::function<std::unique_ptr<Module>()> make;
  Shape input, output;
  std::int64_t flops;
};

template <typename Layer, typename... Args>
Case layer_case(std::string label, Shape input, Shape output, std::int64_t flops, Args... args) {
  return {std::move(label), [=] { return std::make_unique<Layer>(args...); }, input, output, flops};
}

// Sizes and FLOPs worked out by hand.
std::vector<Case> cases() {
  return {
      layer_case<Conv2d>("conv 3x3/2", {2, 9, 7, 4}, {2, 5, 4, 6}, 2 * 2 * 5 * 4 * 6 * 9 * 4, "c",
                         4, 6, 3, ConvOptions{.stride = 2, .padding = 1}),
      layer_case<Conv2d>("depthwise", {3, 6, 6, 8}, {3, 4, 4, 8}, 2 * 3 * 4 * 4 * 8 * 9, "c", 8, 8,
                         3, ConvOptions{.groups = 8, .bias = false}),
      layer_case<Linear>("linear", {5, 6}, {5, 3}, 2 * 5 * 6 * 3, "l", 6, 3),
      layer_case<BatchNorm>("batch norm", {2, 3, 3, 4}, {2, 3, 3, 4}, 0, "b", 4),
      layer_case<ConvBnAct>("fused 5x5", {1, 8, 8, 2}, {1, 8, 8, 3}, 2 * 64 * 3 * 25 * 2, "c", "b",
                            2, 3, 5),
      layer_case<MaxPool>("max 2", {2, 7, 6, 3}, {2, 3, 3, 3}, 0),
      layer_case<MaxPool>("max 3/2+1", {2, 7, 6, 3}, {2, 4, 3, 3}, 0,
                          Pool2dOptions{.kernel = 3, .stride = 2, .padding = 1}),
      layer_case<AvgPool>("avg 3", {2, 7, 6, 3}, {2, 2, 2, 3}, 0, Pool2dOptions{.kernel = 3}),
      layer_case<AdaptiveAvgPool>("adaptive", {2, 7, 5, 3}, {2, 2, 2, 3}, 0, 2, 2),
      layer_case<Dropout>("dropout", {4, 6}, {4, 6}, 0, "d", 0.5),
      layer_case<Flatten>("flatten", {4, 2, 3, 5}, {4, 30}, 0),
  };
}

TEST(Layers, ShapesAndFlopsAreWhatForwardDoes) {
  const ContextPtr context = make_context();
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.label);
    const auto layer = c.make();
    EXPECT_EQ(layer->output_shape(c.input), c.output);
    EXPECT_EQ(layer->flops(c.input), c.flops);
    layer->materialize(context, 1);
    const Tensor x = random_tensor(context, c.input, 1);
    EXPECT_EQ(layer->forward({}, x).shape(), c.output);
    Tape tape;
    EXPECT_EQ(layer->forward({.tape = &tape, .training = true}, x).shape(), c.output);
  }
}

TEST(Layers, SequentialAddsUp) {
  Sequential net;
  net.emplace<ConvBnAct>("c", "b", 3, 4, 3, ConvBnOptions{.stride = 2})
      .emplace<MaxPool>()
      .emplace<Flatten>()
      .emplace<Linear>("l", 4 * 4 * 4, 7);
  EXPECT_EQ(net.output_shape({2, 16, 16, 3}), Shape({2, 7}));
  EXPECT_EQ(net.flops({2, 16, 16, 3}), 2 * 2 * (8 * 8 * 4 * 27 + 64 * 7));
  std::vector<std::string> names;
  for (const Parameter* parameter : net.all()) names.push_back(parameter->name);
  EXPECT_THAT(names, testing::ElementsAre("c.weight", "b.weight", "b.bias", "b.running_mean",
                                          "b.running_var", "l.weight", "l.bias"));
}

TEST(Layers, OnlyWeightsOfConvolutionsAndLinearLayersDecay) {
  Sequential net;
  net.emplace<Conv2d>("c", 3, 4, 3).emplace<BatchNorm>("b", 4).emplace<Linear>("l", 4, 2);
  for (const Parameter* parameter : net.parameters())
    EXPECT_EQ(parameter->decay, parameter->name == "c.weight" || parameter->name == "l.weight")
        << parameter->name;
}

TEST(Layers, FusedBlockEqualsItsParts) {
  const ContextPtr context = make_context();
  ConvBnAct fused("c", "b", 4, 6, 3);
  fused.materialize(context, 2);
  Conv2d conv("c", 4, 6, 3, {.padding = 1, .bias = false});
  BatchNorm bn("b", 6);
  conv.materialize(context, 2);
  bn.materialize(context, 2);
  const Tensor x = random_tensor(context, {3, 5, 5, 4}, 1);
  const Tensor residual = random_tensor(context, {3, 5, 5, 6}, 2);
  const Pass pass{.training = true};
  const auto actual = fused.forward(pass, x, residual).to_host<float>();
  const Tensor sum = add(nullptr, bn.forward(pass, conv.forward(pass, x)), residual);
  const auto expected = relu(nullptr, sum).to_host<float>();
  ASSERT_EQ(actual.size(), expected.size());
  // The same convolution; then scale, shift and add, a rounding each, of values below 16.
  for (std::size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], 4 * 16 * 0x1p-24) << i;
  EXPECT_TRUE(std::any_of(actual.begin(), actual.end(), [](float v) { return v > 0; }));
  EXPECT_TRUE(std::all_of(actual.begin(), actual.end(), [](float v) { return v >= 0; }));
}

TEST(Layers, RunningStatisticsMoveInTrainingOnlyAndWhenToldTo) {
  const ContextPtr context = make_context();
  BatchNorm bn("b", 4);
  bn.materialize(context, 1);
  const auto state = [&] {
    StateDict result;
    bn.save(result);
    return result;
  };
  const Tensor x = random_tensor(context, {8, 3, 3, 4}, 1);
  const StateDict before = state();
  bn.forward({}, x);
  EXPECT_EQ(state(), before);
  const auto batch = bn.forward({.training = true, .update_statistics = false}, x);
  EXPECT_EQ(state(), before);
  const auto again = bn.forward({.training = true}, x);
  EXPECT_NE(state(), before);
  EXPECT_EQ(batch.to_host<float>(), again.to_host<float>());
  EXPECT_NE(batch.to_host<float>(), bn.forward({}, x).to_host<float>());
}

TEST(Layers, DropoutMaskDependsOnKeyAndName) {
  const ContextPtr context = make_context();
  const Tensor x = Tensor::full(context, {64, 64}, 1.0);
  Dropout a("a", 0.25), b("b", 0.25);
  const auto run = [&](Dropout& layer, std::uint64_t key, bool training) {
    return layer.forward({.training = training, .dropout_key = key}, x).to_host<float>();
  };
  const auto first = run(a, 1, true);
  EXPECT_EQ(first, run(a, 1, true));
  EXPECT_NE(first, run(a, 2, true));
  EXPECT_NE(first, run(b, 1, true));
  EXPECT_EQ(run(a, 1, false), x.to_host<float>());
  // Dropped are 4096 * 0.25 = 1024; five standard deviations of sqrt(4096 * 0.25 * 0.75).
  const auto dropped = std::count(first.begin(), first.end(), 0.0F);
  EXPECT_NEAR(static_cast<double>(dropped), 1024.0, 5 * 27.72);
}

TEST(Layers, ErrorsNameTheLayerTheRuleAndTheValue) {
  const ContextPtr context = make_context();
  Conv2d conv("features.3", 16, 8, 3);
  EXPECT_THAT(
      [&] {
        conv.output_shape({8, 32, 32, 3});
      },
      ThrowsMessage<Error>(HasSubstr("features.3.weight: input has 3 channels, weight "
                                     "expects 16 (input [8,32,32,3])")));
  EXPECT_THAT(
      [&] {
        conv.output_shape({8, 2, 2, 16});
      },
      ThrowsMessage<Error>(HasSubstr("a window of 3 with padding 0 does not fit")));
  EXPECT_THAT(
      [&] {
        conv.forward({}, Tensor::full(context, {1, 4, 4, 16}, 0));
      },
      ThrowsMessage<Error>(HasSubstr("features.3.weight: is on no device")));
  EXPECT_THAT([] { Conv2d("c", 6, 8, 3, {.groups = 4}); },
              ThrowsMessage<Error>(HasSubstr("c: 4 groups must divide the channels, 6 to 8")));
  EXPECT_THAT([] { Linear("l", 0, 8); }, ThrowsMessage<Error>(HasSubstr("l: sizes")));
  EXPECT_THAT(
      [] {
        Linear("l", 4, 8).output_shape({2, 5});
      },
      ThrowsMessage<Error>(HasSubstr("l.weight: input must be (N, 4), got [2,5]")));
  EXPECT_THAT(
      [] {
        BatchNorm("b", 4).output_shape({2, 3, 3, 5});
      },
      ThrowsMessage<Error>(HasSubstr("b.weight: input must have 4 channels")));
  EXPECT_THAT(
      [] {
        MaxPool().output_shape({1, 1, 4, 2});
      },
      ThrowsMessage<Error>(HasSubstr("max_pool: a window of 2")));
  EXPECT_THAT([] { Dropout("d", 1.0); }, ThrowsMessage<Error>(HasSubstr("d: dropout must be in")));
  EXPECT_THAT([] { Sequential().add(nullptr); },
              ThrowsMessage<Error>(HasSubstr("layer 0 is null")));
}

TEST(Model, RefusesWhatDoesNotFit) {
  const auto unit = [](const char* name, const char* prefix, std::int64_t in, std::int64_t out) {
    return std::make_unique<Unit>(
        name, out, std::make_unique<ConvBnAct>(prefix, std::string(prefix) + ".bn", in, out, 3));
  };
  const auto build = [&](std::vector<std::unique_ptr<Unit>> units, std::int64_t classes) {
    Model("mine", {.input = {8, 8, 3}, .classes = 4}, std::move(units),
          make_classifier("fc", 6, classes));
  };
  const auto two = [&](const char* name, const char* prefix, std::int64_t in) {
    std::vector<std::unique_ptr<Unit>> units;
    units.push_back(unit("one", "a", 3, 5));
    units.push_back(unit(name, prefix, in, 6));
    return units;
  };
  EXPECT_NO_THROW(build(two("two", "b", 5), 4));
  EXPECT_THAT([&] { build(two("one", "b", 5), 4); },
              ThrowsMessage<Error>(HasSubstr("two units are named one")));
  EXPECT_THAT([&] { build(two("two", "a", 5), 4); },
              ThrowsMessage<Error>(HasSubstr("two parameters are named a.weight")));
  EXPECT_THAT([&] { build(two("two", "b", 7), 4); },
              ThrowsMessage<Error>(HasSubstr("b.weight: input has 5 channels")));
  EXPECT_THAT([&] { build(two("two", "b", 5), 3); },
              ThrowsMessage<Error>(HasSubstr("its head must put out [1,4], got [1,3]")));
  EXPECT_THAT([&] { build({}, 4); }, ThrowsMessage<Error>(HasSubstr("at least one unit")));
}

}  // namespace
}  // namespace nf::nn
