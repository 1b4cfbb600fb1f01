#include "nn/data/transform.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "engine/error.h"
#include "engine/random.h"

namespace nf::nn {
namespace {

constexpr std::uint64_t kKey = 11;

/// The definition, step by step: pad, pad again, crop, mirror, normalise.
std::vector<float> reference(const ImageSet& set, std::int64_t index,
                             const TransformOptions& options, std::int64_t move_y,
                             std::int64_t move_x, bool flip) {
  const std::int64_t height = std::max(options.pad_to_height, set.height);
  const std::int64_t width = std::max(options.pad_to_width, set.width);
  const std::int64_t margin = options.crop_padding;
  const std::int64_t big_width = width + 2 * margin;
  std::vector<std::uint8_t> padded(
      static_cast<std::size_t>((height + 2 * margin) * big_width * set.channels));
  const std::int64_t top = (height - set.height) / 2 + margin;
  const std::int64_t left = (width - set.width) / 2 + margin;
  for (std::int64_t y = 0; y < set.height; ++y)
    for (std::int64_t x = 0; x < set.width; ++x)
      for (std::int64_t c = 0; c < set.channels; ++c)
        padded[static_cast<std::size_t>(((top + y) * big_width + left + x) * set.channels + c)] =
            set.pixels[static_cast<std::size_t>(
                ((index * set.height + y) * set.width + x) * set.channels + c)];
  std::vector<float> out;
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x)
      for (std::int64_t c = 0; c < set.channels; ++c) {
        const std::int64_t column = flip ? width - 1 - x : x;
        const auto value = padded[static_cast<std::size_t>(
            ((y + move_y) * big_width + column + move_x) * set.channels + c)];
        const auto channel = static_cast<std::size_t>(c);
        const float mean = options.mean.empty() ? 0 : options.mean[channel];
        const float std = options.std.empty() ? 1 : options.std[channel];
        out.push_back((static_cast<float>(value) / 255.0F - mean) / std);
      }
  return out;
}

std::vector<float> apply(const Transform& transform, const ImageSet& set, std::int64_t index,
                         RandomStream* augment) {
  // What apply leaves out stays not-a-number, which equals nothing.
  std::vector<float> out(static_cast<std::size_t>(transform.output_shape(set).numel()),
                         std::numeric_limits<float>::quiet_NaN());
  transform.apply(set, index, out.data(), augment);
  return out;
}

// (height, width, channels, pad to, crop padding, statistics)
using TransformCase = std::tuple<int, int, int, int, int, bool>;
class TransformCases : public ::testing::TestWithParam<TransformCase> {
 protected:
  TransformCases() {
    const auto [height, width, channels, pad_to, crop, statistics] = GetParam();
    set_ = generate_images({.count = 3, .height = height, .width = width, .channels = channels});
    options_.pad_to_height = pad_to;
    options_.pad_to_width = pad_to > 0 ? pad_to + 2 : 0;
    options_.crop_padding = crop;
    for (int c = 0; statistics && c < channels; ++c) {
      options_.mean.push_back(0.3F + 0.1F * static_cast<float>(c));
      options_.std.push_back(0.2F + 0.05F * static_cast<float>(c));
    }
  }
  ImageSet set_;
  TransformOptions options_;
};

TEST_P(TransformCases, WithoutAugmentationIsTheCentre) {
  options_.flip = true;
  const Transform transform(options_);
  const std::int64_t p = options_.crop_padding;
  EXPECT_EQ(apply(transform, set_, 2, nullptr), reference(set_, 2, options_, p, p, false));
}

TEST_P(TransformCases, AugmentationCropsAndFlipsAsDrawn) {
  options_.flip = true;
  const Transform transform(options_);
  const auto moves = static_cast<std::uint64_t>(2 * options_.crop_padding + 1);
  bool flipped[2] = {};
  for (std::uint64_t stream = 0; stream < 40; ++stream) {
    RandomStream random(kKey, stream), same(kKey, stream);
    std::int64_t y = 0, x = 0;
    if (options_.crop_padding > 0) {
      y = static_cast<std::int64_t>(same.below(moves));
      x = static_cast<std::int64_t>(same.below(moves));
    }
    const bool flip = same.uniform() < 0.5F;
    flipped[flip] = true;
    EXPECT_EQ(apply(transform, set_, 1, &random), reference(set_, 1, options_, y, x, flip))
        << "stream " << stream << ": " << y << "," << x << " flip " << flip;
  }
  EXPECT_TRUE(flipped[0] && flipped[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, TransformCases,
    ::testing::Values(TransformCase{5, 7, 1, 0, 0, false}, TransformCase{5, 7, 3, 0, 2, true},
                      TransformCase{5, 7, 2, 8, 1, true}, TransformCase{7, 5, 3, 10, 0, false},
                      TransformCase{28, 28, 1, 32, 4, true}, TransformCase{1, 1, 4, 0, 1, true},
                      // The window can miss the image altogether.
                      TransformCase{2, 3, 3, 0, 6, true}, TransformCase{3, 2, 1, 9, 7, true}));

TEST(Transform, EveryMoveOfTheCropIsDrawn) {
  ImageSet set{.count = 1,
               .height = 3,
               .width = 3,
               .channels = 1,
               .classes = 1,
               .pixels = {0, 0, 0, 0, 255, 0, 0, 0, 0},
               .labels = {0}};
  const Transform transform({.mean = {}, .std = {}, .crop_padding = 1});
  int seen[9] = {};
  const int draws = 1800;
  for (int i = 0; i < draws; ++i) {
    RandomStream random(kKey, static_cast<std::uint64_t>(i));
    const auto out = apply(transform, set, 0, &random);
    for (std::size_t j = 0; j < 9; ++j) seen[j] += out[j] == 1.0F;
  }
  // Binomial: mean 200, standard deviation sqrt(1800 * 1/9 * 8/9) = 13.3.
  for (const int count : seen) EXPECT_NEAR(count, 200, 5 * 13.4);
}

TEST(Transform, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Transform({.mean = {0.5F}, .std = {0.0F}}), Error);
  EXPECT_THROW(Transform({.mean = {0.5F}, .std = {NAN}}), Error);
  EXPECT_THROW(Transform({.mean = {0.5F, 0.5F}, .std = {1.0F}}), Error);
  EXPECT_THROW(Transform({.mean = {}, .std = {}, .crop_padding = -1}), Error);
  // A window would not tell where it lies.
  EXPECT_THROW(Transform({.mean = {}, .std = {}, .crop_padding = (1 << 29) + 1}), Error);
  EXPECT_THROW(Transform({.mean = {}, .std = {}, .pad_to_width = (1 << 29) + 1}), Error);
  const ImageSet set = generate_images({.count = 2, .height = 4, .width = 4});
  const Transform narrow({.mean = {}, .std = {}, .pad_to_width = 3});
  EXPECT_THROW(narrow.output_shape(set), Error);
  const Transform grey({.mean = {0.5F}, .std = {1.0F}});
  EXPECT_THROW(grey.output_shape(set), Error);
  std::vector<float> out(48);
  EXPECT_THROW(Transform().apply(set, 2, out.data(), nullptr), Error);
  EXPECT_THROW(Transform().apply(set, -1, out.data(), nullptr), Error);
}

}  // namespace
}  // namespace nf::nn
