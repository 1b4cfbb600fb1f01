#include "nn/join_units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/models/registry.h"
#include "tests/nn/context.h"

namespace nf::nn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Sizes = std::vector<std::int64_t>;

const ModelOptions kSmall{.input = {16, 16, 3}, .classes = 5, .width = 0.125};

Sizes sizes_of(const char* model, const char* rule) {
  return joined_unit_sizes(*make_model(model, {}), rule);
}

TEST(JoinUnits, RulesCutNetsWhereTheySay) {
  EXPECT_THAT(sizes_of("vgg11", "each"), testing::Each(1));
  EXPECT_THAT(sizes_of("vgg11", "each"), testing::SizeIs(8));
  // Outputs of 32, 16, 8 and 4 pixels.
  EXPECT_THAT(sizes_of("resnet18", "stage"), ElementsAre(3, 2, 2, 2));
  // A pool ends the last unit of each of VGG's stages, so that its output is of the next size.
  EXPECT_THAT(sizes_of("vgg16", "stage"), ElementsAre(1, 2, 3, 3, 3, 1));
  EXPECT_THAT(sizes_of("vgg11", "1"), ElementsAre(8));
  EXPECT_THAT(sizes_of("vgg11", "8"), testing::Each(1));
  EXPECT_THAT(sizes_of("vgg11", "99"), testing::SizeIs(8));
  EXPECT_THAT(sizes_of("resnet18", "4,5"), ElementsAre(4, 5));
  EXPECT_THAT(sizes_of("resnet18", "1,6,2"), ElementsAre(1, 6, 2));
}

TEST(JoinUnits, TheDearestIsAsCheapAsAnyCutAllows) {
  for (const char* name : {"vgg11", "resnet18"}) {
    const auto model = make_model(name, {});
    const std::int64_t units = model->unit_count();
    const auto cost = [&](std::int64_t first, std::int64_t last) {
      std::int64_t sum = 0;
      for (std::int64_t i = first; i < last; ++i)
        sum += model->unit(i).flops(model->unit_input_shape(i, 1));
      return sum;
    };
    // All ways to cut in three.
    std::int64_t least = cost(0, units);
    for (std::int64_t a = 1; a < units; ++a)
      for (std::int64_t b = a + 1; b < units; ++b)
        least = std::min(least, std::max({cost(0, a), cost(a, b), cost(b, units)}));
    const Sizes sizes = joined_unit_sizes(*model, "3");
    ASSERT_EQ(sizes.size(), 3U) << name;
    const std::int64_t a = sizes[0], b = a + sizes[1];
    EXPECT_EQ(b + sizes[2], units);
    EXPECT_EQ(std::max({cost(0, a), cost(a, b), cost(b, units)}), least) << name;
  }
}

TEST(JoinUnits, OtherRulesAreRefusedByName) {
  const auto model = make_model("vgg11", {});
  for (const char* rule : {"", "0", "-1", "2x", "stages", "1.5", "99999999999999999999", ",", "4,",
                           ",4", "4,,4", "4,x", "4;4", "4, 4", "0,8", "9,-1"})
    EXPECT_THAT([&] { joined_unit_sizes(*model, rule); },
                ThrowsMessage<Error>(HasSubstr(fmt::format("got \"{}\"", rule))))
        << rule;
}

TEST(JoinUnits, SizesThatDoNotAddUpAreRefused) {
  for (const Sizes& sizes :
       {Sizes{}, Sizes{7}, Sizes{8, 1}, Sizes{4, 0, 4}, Sizes{9}, Sizes{-1, 9}})
    EXPECT_THROW(join_units(make_model("vgg11", {}), sizes), Error);
}

TEST(JoinUnits, ListsThatDoNotAddUpAreRefused) {
  const auto model = make_model("vgg11", {});
  EXPECT_THAT([&] { joined_unit_sizes(*model, "4,3"); },
              ThrowsMessage<Error>(HasSubstr("1 of vgg11's 8 units are in no larger one")));
  EXPECT_THAT([&] { joined_unit_sizes(*model, "4,5"); },
              ThrowsMessage<Error>(HasSubstr("4 of vgg11's 8 units are left, 5 cannot be joined")));
}

// Joining changes neither what a net computes nor its parameters.
TEST(JoinUnits, TheNetStaysTheSame) {
  for (const char* name : {"vgg11", "resnet18", "mobilenet_v2"}) {
    const auto logits = [&](std::unique_ptr<Model> model) {
      const ContextPtr context = make_context();
      model->materialize(context, 3);
      std::vector<float> images(static_cast<std::size_t>(model->input_shape(2).numel()));
      for (std::size_t i = 0; i < images.size(); ++i)
        images[i] = static_cast<float>(i % 17) / 8.0F - 1.0F;
      const Tensor x = Tensor::empty(context, model->input_shape(2));
      Tensor input = x;
      input.copy_from_host(images.data());
      std::vector<float> result = model->forward({}, input).to_host<float>();
      model->release();
      return result;
    };
    const auto alone = make_model(name, kSmall);
    auto joined = join_units(make_model(name, kSmall), joined_unit_sizes(*alone, "stage"));
    EXPECT_LT(joined->unit_count(), alone->unit_count()) << name;
    EXPECT_EQ(joined->parameter_count(), alone->parameter_count()) << name;
    EXPECT_EQ(joined->flops(joined->input_shape(1)), alone->flops(alone->input_shape(1))) << name;
    const auto names = [](Model& model) {
      std::vector<std::string> list;
      for (const Parameter* parameter : model.all()) list.push_back(parameter->name);
      return list;
    };
    EXPECT_EQ(names(*joined), names(*alone)) << name;
    std::int64_t units = 0;
    for (const auto& unit : joined->units()) units += unit->joined();
    EXPECT_EQ(units, alone->unit_count()) << name;
    EXPECT_EQ(logits(std::move(joined)), logits(make_model(name, kSmall))) << name;
  }
}

TEST(JoinUnits, AreNamedAfterTheirEnds) {
  const auto model = join_units(make_model("resnet18", kSmall), {3, 1, 5});
  EXPECT_EQ(model->unit(0).name(), "stem..layer1.1");
  EXPECT_EQ(model->unit(1).name(), "layer2.0");
  EXPECT_EQ(model->unit(2).name(), "layer2.1..layer4.1");
}

}  // namespace
}  // namespace nf::nn
