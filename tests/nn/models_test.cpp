#include "nn/models/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "engine/ops/softmax_cross_entropy.h"
#include "engine/random.h"
#include "nn/models/width.h"
#include "nn/optimizer.h"

namespace nf::nn {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::string> parameter_names(Module& module) {
  std::vector<std::string> names;
  for (const Parameter* parameter : module.all()) names.push_back(parameter->name);
  return names;
}

struct Known {
  const char* name;
  std::int64_t parameters;  // ten classes, 32x32x3
  std::int64_t units;
};

// torchvision's vggN_bn without its classifier (123,642,856) and its convolutions' biases, and with
// a linear layer of 512 to 10.
constexpr std::int64_t kVggHead = 512 * 10 + 10;
constexpr std::int64_t kVgg11 = 132'868'840 - 123'642'856 - 2'752 + kVggHead;
constexpr std::int64_t kVgg13 = 133'053'736 - 123'642'856 - 2'944 + kVggHead;
constexpr std::int64_t kVgg16 = 138'365'992 - 123'642'856 - 4'224 + kVggHead;
constexpr std::int64_t kVgg19 = 143'678'248 - 123'642'856 - 5'504 + kVggHead;
// torchvision's, with a 3x3 in place of a 7x7 stem and ten classes.
constexpr std::int64_t kStemLess = 3 * 64 * (49 - 9);
constexpr std::int64_t kResNet18 = 11'689'512 - kStemLess - 513 * 990;
constexpr std::int64_t kResNet34 = 21'797'672 - kStemLess - 513 * 990;
constexpr std::int64_t kResNet50 = 25'557'032 - kStemLess - 2049 * 990;
constexpr std::int64_t kMobileNetV2 = 3'504'872 - 1281 * 990;

constexpr Known kKnown[] = {
    {"vgg11", kVgg11, 8},
    {"vgg13", kVgg13, 10},
    {"vgg16", kVgg16, 13},
    {"vgg19", kVgg19, 16},
    {"resnet18", kResNet18, 9},
    {"resnet34", kResNet34, 17},
    {"resnet50", kResNet50, 17},
    // The sum over the reference's layers: 9 i + 2 i + i o + 2 o for each block.
    {"mobilenet_v1", 3'217'226, 14},
    {"mobilenet_v2", kMobileNetV2, 19},
};

TEST(Models, ParametersAndUnitsAreThoseKnown) {
  std::set<std::string> tested;
  for (const Known& known : kKnown) {
    const auto model = make_model(known.name, {});
    EXPECT_EQ(model->name(), known.name);
    EXPECT_EQ(model->parameter_count(), known.parameters) << known.name;
    EXPECT_EQ(model->unit_count(), known.units) << known.name;
    tested.insert(known.name);
  }
  const std::set<std::string> listed(model_names().begin(), model_names().end());
  EXPECT_EQ(tested, listed);
}

TEST(Models, LargeImagesGetTheStemsOfTorchvision) {
  const ModelOptions imagenet{.input = {224, 224, 3}, .classes = 1000};
  struct Large {
    const char* name;
    std::int64_t parameters;
    double giga_multiply_adds;  // as torchvision documents them, to three digits
  };
  for (const Large& large : {Large{"resnet18", 11'689'512, 1.814},
                             {"resnet34", 21'797'672, 3.664},
                             {"resnet50", 25'557'032, 4.089},
                             {"mobilenet_v2", 3'504'872, 0.301}}) {
    const auto model = make_model(large.name, imagenet);
    EXPECT_EQ(model->parameter_count(), large.parameters) << large.name;
    const auto flops = static_cast<double>(model->flops(model->input_shape(1)));
    EXPECT_NEAR(flops / 2e9, large.giga_multiply_adds, 5e-4) << large.name;
    EXPECT_EQ(model->flops(model->input_shape(3)), 3 * model->flops(model->input_shape(1)));
  }
}

TEST(Models, MapsShrinkAsInTheReference) {
  const auto last_map = [](const char* name, std::int64_t size) {
    const auto model = make_model(name, {.input = {size, size, 3}});
    return model->unit_input_shape(model->unit_count(), 2)[1];
  };
  EXPECT_EQ(last_map("vgg11", 32), 1);
  EXPECT_EQ(last_map("vgg16", 64), 2);
  EXPECT_EQ(last_map("vgg11", 28), 1);  // its last pool is left out
  EXPECT_EQ(last_map("resnet18", 32), 4);
  EXPECT_EQ(last_map("resnet50", 224), 7);
  EXPECT_EQ(last_map("mobilenet_v1", 32), 2);
  EXPECT_EQ(last_map("mobilenet_v1", 224), 7);
  EXPECT_EQ(last_map("mobilenet_v2", 32), 4);
  EXPECT_EQ(last_map("mobilenet_v2", 224), 7);
}

TEST(Models, NamesAreThoseOfPyTorch) {
  const auto vgg = make_model("vgg11", {});
  std::vector<std::string> expected;
  for (const int conv : {0, 4, 8, 11, 15, 18, 22, 25}) {
    expected.push_back(fmt::format("features.{}.weight", conv));
    for (const char* what : {"weight", "bias", "running_mean", "running_var"})
      expected.push_back(fmt::format("features.{}.{}", conv + 1, what));
  }
  expected.insert(expected.end(), {"classifier.weight", "classifier.bias"});
  EXPECT_EQ(parameter_names(*vgg), expected);

  const auto resnet = make_model("resnet18", {});
  expected.clear();
  const auto conv_bn = [&](const std::string& conv, const std::string& bn) {
    expected.push_back(conv + ".weight");
    for (const char* what : {"weight", "bias", "running_mean", "running_var"})
      expected.push_back(fmt::format("{}.{}", bn, what));
  };
  conv_bn("conv1", "bn1");
  for (int layer = 1; layer <= 4; ++layer)
    for (int block = 0; block < 2; ++block) {
      const std::string prefix = fmt::format("layer{}.{}.", layer, block);
      conv_bn(prefix + "conv1", prefix + "bn1");
      conv_bn(prefix + "conv2", prefix + "bn2");
      if (layer > 1 && block == 0) conv_bn(prefix + "downsample.0", prefix + "downsample.1");
    }
  expected.insert(expected.end(), {"fc.weight", "fc.bias"});
  EXPECT_EQ(parameter_names(*resnet), expected);

  const auto mobilenet = make_model("mobilenet_v2", {});
  EXPECT_THAT(parameter_names(*mobilenet),
              testing::IsSupersetOf({"features.0.0.weight", "features.0.1.running_var",
                                     "features.1.conv.0.0.weight", "features.1.conv.1.weight",
                                     "features.1.conv.2.bias", "features.2.conv.0.1.weight",
                                     "features.2.conv.1.0.weight", "features.17.conv.2.weight",
                                     "features.17.conv.3.running_mean", "features.18.0.weight",
                                     "features.18.1.bias", "classifier.1.weight"}));
}

TEST(Models, ConvolutionsHaveTheEnginesLayout) {
  const auto model = make_model("mobilenet_v1", {});
  std::map<std::string, Shape> shapes;
  for (const Parameter* parameter : model->all()) shapes[parameter->name] = parameter->shape;
  EXPECT_EQ(shapes["features.0.0.weight"], Shape({32, 3, 3, 3}));
  EXPECT_EQ(shapes["features.2.0.0.weight"], Shape({64, 3, 3, 1}));
  EXPECT_EQ(shapes["features.2.1.0.weight"], Shape({128, 1, 1, 64}));
}

TEST(Models, WidthScalesChannels) {
  EXPECT_EQ(make_model("vgg11", {.width = 0.5})->unit(0).out_channels(), 32);
  EXPECT_EQ(make_model("vgg11", {.width = 0.001})->unit(0).out_channels(), 1);
  EXPECT_EQ(make_model("resnet50", {.width = 0.25})->unit(16).out_channels(), 512);
  // torchvision: mobilenet_v2(width_mult=0.5) ends in 160 channels before the 1280 of its last
  // unit.
  const auto half = make_model("mobilenet_v2", {.width = 0.5});
  EXPECT_EQ(half->unit(17).out_channels(), 160);
  EXPECT_EQ(half->unit(18).out_channels(), 1280);
  // Values of torchvision's _make_divisible(channels * width, 8).
  EXPECT_EQ(divisible_channels(32, 0.1), 8);
  EXPECT_EQ(divisible_channels(24, 0.75), 24);  // 16 would lose more than a tenth of 18
  EXPECT_EQ(divisible_channels(96, 1.4), 136);
  EXPECT_EQ(divisible_channels(20, 1.0), 24);
}

TEST(Models, ForwardOnMetaGivesLogitsAndShapesOfUnits) {
  const std::int64_t batch = 5;
  for (const std::string& name : model_names()) {
    SCOPED_TRACE(name);
    const ContextPtr meta = make_meta_context({});
    const auto model = make_model(name, {.classes = 7, .dropout = 0.1});
    model->materialize(meta, 1);
    const Tensor x = Tensor::empty(meta, model->input_shape(batch));
    Tensor y = x;
    for (std::int64_t i = 0; i < model->unit_count(); ++i) {
      EXPECT_EQ(y.shape(), model->unit_input_shape(i, batch));
      y = model->unit(i).forward({}, y);
      EXPECT_EQ(y.dim(3), model->unit(i).out_channels());
    }
    EXPECT_EQ(y.shape(), model->unit_input_shape(model->unit_count(), batch));
    const Shape logits{batch, 7};
    EXPECT_EQ(model->head().forward({}, y).shape(), logits);
    y = {};
    Tape tape;
    EXPECT_EQ(model->forward({.tape = &tape, .training = true}, x).shape(), logits);
    EXPECT_EQ(model->output_shape(model->input_shape(batch)), logits);
    EXPECT_FALSE(tape.nodes().empty());
    for (const auto& node : tape.nodes()) EXPECT_NE(node->unit(), "") << node->name();
  }
}

TEST(Models, NamesMayBeWrittenInSeveralWays) {
  for (const char* name : {"vgg-11", "VGG11", "Vgg_11"})
    EXPECT_EQ(make_model(name, {})->name(), "vgg11");
  EXPECT_EQ(make_model("mobilenetv1", {})->name(), "mobilenet_v1");
  EXPECT_THAT([] { make_model("vgg12", {}); },
              ThrowsMessage<Error>(HasSubstr("none named \"vgg12\"; did you mean vgg11?")));
  EXPECT_THAT([] { make_model("mobilnet-v2", {}); },
              ThrowsMessage<Error>(HasSubstr("did you mean mobilenet_v2?")));
}

TEST(Models, OptionsAreChecked) {
  const auto message = [](const ModelOptions& options) {
    try {
      make_model("vgg11", options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message({.input = {32, 32}}), HasSubstr("(H, W, C)"));
  EXPECT_THAT(message({.input = {32, 0, 3}}), HasSubstr("got [32,0,3]"));
  EXPECT_THAT(message({.classes = 0}), HasSubstr("classes must be at least 1, got 0"));
  EXPECT_THAT(message({.width = std::nan("")}), HasSubstr("width"));
  EXPECT_THAT(message({.width = 0}), HasSubstr("width must be in (0, 16], got 0"));
  EXPECT_THAT(message({.dropout = 1}), HasSubstr("dropout must be in [0, 1), got 1"));
}

/// Labels that follow from the image: which of four quarters is bright.
struct Samples {
  Tensor images, labels;
};

Samples make_samples(const ContextPtr& context, std::int64_t count, std::int64_t size) {
  RandomStream random(random_key(5, Purpose::test));
  std::vector<float> images(static_cast<std::size_t>(count * size * size));
  std::vector<std::int32_t> labels(static_cast<std::size_t>(count));
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t label = n % 4;
    labels[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(label);
    for (std::int64_t y = 0; y < size; ++y)
      for (std::int64_t x = 0; x < size; ++x) {
        const bool bright = y / (size / 2) * 2 + x / (size / 2) == label;
        images[static_cast<std::size_t>((n * size + y) * size + x)] =
            0.3F * random.normal() + (bright ? 1.0F : 0.0F);
      }
  }
  return {Tensor::from_host<float>(context, {count, size, size, 1}, images),
          Tensor::from_host<std::int32_t>(context, {count}, labels)};
}

TEST(Models, LearnOnTheCpu) {
  struct Run {
    const char* name;
    double width;
    std::uint64_t steps;
  };
  // The deeper a net without shortcuts and the narrower, the longer it takes to set out.
  for (const Run& run : {Run{"vgg11", 0.125, 12},
                         {"resnet18", 0.125, 12},
                         {"resnet50", 0.125, 16},
                         {"mobilenet_v1", 0.25, 24},
                         {"mobilenet_v2", 0.125, 20}}) {
    SCOPED_TRACE(run.name);
    const ContextPtr context = Context::create({.budget = std::int64_t{256} << 20, .threads = 1});
    const auto model =
        make_model(run.name, {.input = {16, 16, 1}, .classes = 4, .width = run.width});
    model->materialize(context, 1);
    Optimizer optimizer(model->parameters(), {.learning_rate = 0.02});
    const Samples samples = make_samples(context, 16, 16);
    const std::int64_t idle = context->pool().stats().live;
    float first = 0, last = 0;
    for (std::uint64_t step = 0; step < run.steps; ++step) {
      Tape tape;
      const Pass pass{.tape = &tape, .training = true};
      const Tensor loss =
          softmax_cross_entropy(&tape, model->forward(pass, samples.images), samples.labels).loss;
      tape.backward(loss);
      optimizer.step();
      optimizer.zero_grad();
      last = loss.to_host<float>()[0];
      ASSERT_TRUE(std::isfinite(last)) << "step " << step;
      if (step == 0) first = last;
    }
    EXPECT_LT(last, 0.5F * first);
    EXPECT_EQ(context->pool().stats().live, idle);
  }
}

}  // namespace
}  // namespace nf::nn
