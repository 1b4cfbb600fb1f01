#include "nn/data/image_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <string>

#include "engine/error.h"
#include "nn/data/idx.h"
#include "nn/data/training_data.h"

namespace nf::nn {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A folder of its own for one test, with small raw IDX files.
class ImageSetFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              (std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "-" +
               std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::vector<std::uint8_t>& extents,
                 const std::vector<std::uint8_t>& data) const {
    std::ofstream file(folder_ / name, std::ios::binary);
    const auto put = [&](std::uint8_t byte) { file.put(static_cast<char>(byte)); };
    for (const int byte : {0, 0, 8}) file.put(static_cast<char>(byte));
    put(static_cast<std::uint8_t>(extents.size()));
    for (const std::uint8_t extent : extents) {
      for (int i = 0; i < 3; ++i) put(0);
      put(extent);
    }
    for (const std::uint8_t byte : data) put(byte);
    return folder_ / name;
  }

  fs::path folder_;
};

template <typename Call>
std::string data_error(Call call) {
  try {
    call();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

TEST_F(ImageSetFiles, LoadsPixelsAndLabels) {
  const auto images = write("images", {2, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255});
  const auto labels = write("labels", {2}, {9, 0});
  const ImageSet set = load_idx_images(images, labels);
  EXPECT_EQ(set.count, 2);
  EXPECT_EQ(set.height, 2);
  EXPECT_EQ(set.width, 3);
  EXPECT_EQ(set.channels, 1);
  EXPECT_EQ(set.classes, 10);
  EXPECT_EQ(set.pixels, (std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255}));
  EXPECT_EQ(set.labels, (std::vector<std::int32_t>{9, 0}));
}

TEST_F(ImageSetFiles, DamageIsToldWithFileOffsetAndValue) {
  const auto images = write("images", {2, 1, 1}, {1, 2});
  const auto labels = write("labels", {2}, {0, 1});
  const auto load = [](const fs::path& i, const fs::path& l, std::int64_t classes = 10) {
    return data_error([&] { load_idx_images(i, l, classes); });
  };
  EXPECT_THAT(load(images, write("three", {3}, {0, 1, 2})),
              AllOf(HasSubstr("three: byte 4"), HasSubstr("is 3"), HasSubstr("has 2")));
  EXPECT_THAT(load(images, write("high", {2}, {3, 10})),
              AllOf(HasSubstr("high: byte 9: label 1"), HasSubstr("below 10, is 10")));
  EXPECT_THAT(load(images, labels, 1), AllOf(HasSubstr("byte 9"), HasSubstr("below 1, is 1")));
  EXPECT_THAT(load(labels, labels), AllOf(HasSubstr("labels: byte 3"), HasSubstr("rank 1")));
  EXPECT_THAT(load(images, images), AllOf(HasSubstr("images: byte 3"), HasSubstr("rank 3")));
  EXPECT_THAT(load(write("none", {0, 1, 1}, {}), write("none-labels", {0}, {})),
              HasSubstr("none: byte 4: extent 0"));
  EXPECT_THAT(load(write("flat", {2, 1, 0}, {}), labels), HasSubstr("flat: byte 12: extent 2"));
}

TEST_F(ImageSetFiles, ClassesAreThoseOfTheLabelsUnlessGiven) {
  const auto images = write("images", {2, 1, 1}, {1, 2});
  const auto classes = [&](const std::vector<std::uint8_t>& labels) {
    return load_idx_images(images, write("labels", {2}, labels)).classes;
  };
  EXPECT_EQ(classes({3, 1}), 4);
  EXPECT_EQ(classes({255, 0}), 256);
  EXPECT_EQ(classes({0, 0}), 2);
  EXPECT_EQ(load_idx_images(images, write("labels", {2}, {0, 1}), 7).classes, 7);
}

TEST_F(ImageSetFiles, FindsStandardNamesAndNamesWhatIsMissing) {
  EXPECT_THAT(data_error([&] { find_idx(folder_ / "none", Split::train); }),
              AllOf(HasSubstr((folder_ / "none").string()), HasSubstr("does not exist")));
  EXPECT_THAT(data_error([&] { find_idx(folder_, Split::train); }),
              AllOf(HasSubstr(folder_.string()), HasSubstr("train-images-idx3-ubyte "),
                    HasSubstr("train-images-idx3-ubyte.gz")));
  const auto images = write("t10k-images-idx3-ubyte.gz", {1, 1, 1}, {1});
  EXPECT_THAT(data_error([&] { find_idx(folder_, Split::test); }),
              AllOf(HasSubstr(folder_.string()), HasSubstr("t10k-labels-idx1-ubyte ")));
  const auto labels = write("t10k-labels-idx1-ubyte", {1}, {1});
  const IdxPaths paths = find_idx(folder_, Split::test);
  EXPECT_EQ(paths.images, images);
  EXPECT_EQ(paths.labels, labels);
}

TEST_F(ImageSetFiles, AFolderHasTheClassesThatItsTrainingLabelsShow) {
  const auto set = [&](const std::string& split, const std::vector<std::uint8_t>& labels) {
    const auto count = static_cast<std::uint8_t>(labels.size());
    write(split + "-images-idx3-ubyte", {count, 1, 1}, labels);
    write(split + "-labels-idx1-ubyte", {count}, labels);
  };
  TrainingDataOptions options{.validation_fraction = 0.0};
  set("train", {2, 0, 1});
  set("t10k", {1});
  EXPECT_EQ(load_idx_folder(folder_, options).classes(), 3);
  // A label beyond the others is damage, unless the number of classes is given.
  set("t10k", {1, 11});
  EXPECT_THAT(data_error([&] { load_idx_folder(folder_, options); }),
              AllOf(HasSubstr("t10k-labels-idx1-ubyte: byte 9: label 1 is 11"),
                    HasSubstr("no training image has label 3")));
  set("t10k", {1});
  set("train", {2, 0, 200});
  EXPECT_THAT(data_error([&] { load_idx_folder(folder_, options); }),
              AllOf(HasSubstr("train-labels-idx1-ubyte: byte 10: label 2 is 200"),
                    HasSubstr("no training image has label 1")));
  set("train", {2, 0});
  set("t10k", {11});
  options.classes = 20;
  EXPECT_EQ(load_idx_folder(folder_, options).classes(), 20);
  options.classes = 10;
  EXPECT_THAT(
      data_error([&] { load_idx_folder(folder_, options); }),
      AllOf(HasSubstr("t10k-labels-idx1-ubyte: byte 8: label 0"), HasSubstr("below 10, is 11")));
}

TEST(ImageSet, ShippedDataIsBalancedAndWhole) {
  const fs::path folder = fs::path(NF_DATA_DIR) / "fashion-mnist-6k";
  for (const auto& [split, per_class] : {std::pair{Split::train, 600}, {Split::test, 100}}) {
    const IdxPaths paths = find_idx(folder, split);
    const ImageSet set = load_idx_images(paths.images, paths.labels);
    check_image_set(set);
    EXPECT_EQ(set.count, 10 * per_class);
    EXPECT_EQ(set.height, 28);
    EXPECT_EQ(set.width, 28);
    for (std::int32_t label = 0; label < 10; ++label)
      EXPECT_EQ(std::count(set.labels.begin(), set.labels.end(), label), per_class);
    // 0.286 and 0.353 are the published figures of the full set; five standard errors of a mean
    // over images whose own means spread by about 0.15.
    const auto statistics = channel_statistics(set, all_indices(set));
    const float tolerance = 5 * 0.15F / std::sqrt(static_cast<float>(set.count));
    EXPECT_NEAR(statistics.mean[0], 0.286F, tolerance);
    EXPECT_NEAR(statistics.std[0], 0.353F, tolerance);
  }
}

TEST(ImageSet, CheckTellsWhatDoesNotFit) {
  const ImageSet good = generate_images({.count = 4, .height = 2, .width = 2, .classes = 2});
  EXPECT_NO_THROW(check_image_set(good));
  ImageSet set = good;
  set.pixels.pop_back();
  EXPECT_THROW(check_image_set(set), Error);
  set = good;
  set.labels.pop_back();
  EXPECT_THROW(check_image_set(set), Error);
  set = good;
  set.labels[3] = 2;
  EXPECT_THROW(check_image_set(set), Error);
  set.labels[3] = -1;
  EXPECT_THROW(check_image_set(set), Error);
  set = good;
  set.width = 0;
  EXPECT_THROW(check_image_set(set), Error);
}

TEST(GenerateImages, IsAFunctionOfItsOptions) {
  const GeneratedOptions options{.count = 30, .height = 9, .width = 7, .channels = 2, .seed = 5};
  const ImageSet set = generate_images(options);
  check_image_set(set);
  EXPECT_EQ(set.count, 30);
  EXPECT_EQ(set.image_size(), 9 * 7 * 2);
  EXPECT_EQ(set.pixels, generate_images(options).pixels);
  GeneratedOptions other = options;
  other.seed = 6;
  EXPECT_NE(set.pixels, generate_images(other).pixels);
  other = options;
  other.stream = 1;
  EXPECT_NE(set.pixels, generate_images(other).pixels);
  // A longer set begins with the shorter one.
  other = options;
  other.count = 40;
  const ImageSet longer = generate_images(other);
  EXPECT_TRUE(std::equal(set.pixels.begin(), set.pixels.end(), longer.pixels.begin()));
}

TEST(GenerateImages, ClassesAreSharedByTheStreamsOfASeed) {
  const auto make = [](std::uint64_t seed, std::uint64_t stream) {
    return generate_images(
        {.count = 500, .height = 16, .width = 16, .seed = seed, .stream = stream});
  };
  // Nearest class mean, learnt on stream 0 of seed 1.
  const ImageSet train = make(1, 0);
  const auto size = static_cast<std::size_t>(train.image_size());
  std::vector<std::vector<double>> means(10, std::vector<double>(size));
  for (std::size_t i = 0; i < 500; ++i)
    for (std::size_t j = 0; j < size; ++j)
      means[static_cast<std::size_t>(train.labels[i])][j] += train.pixels[i * size + j] / 50.0;
  const auto accuracy = [&](const ImageSet& set) {
    int right = 0;
    for (std::size_t i = 0; i < 500; ++i) {
      double least = std::numeric_limits<double>::max();
      std::size_t best = 0;
      for (std::size_t c = 0; c < 10; ++c) {
        double distance = 0;
        for (std::size_t j = 0; j < size; ++j) {
          const double difference = set.pixels[i * size + j] - means[c][j];
          distance += difference * difference;
        }
        if (distance < least) {
          least = distance;
          best = c;
        }
      }
      right += static_cast<std::int32_t>(best) == set.labels[i];
    }
    return right / 500.0;
  };
  EXPECT_GT(accuracy(make(1, 1)), 0.6);
  // Other classes under another seed: a wrong class more often than not.
  EXPECT_LT(accuracy(make(2, 0)), 0.4);
}

TEST(SplitValidation, IsStratifiedDisjointAndComplete) {
  ImageSet set = generate_images({.count = 97, .height = 1, .width = 1, .classes = 5});
  for (std::size_t i = 0; i < 40; ++i) set.labels[i] = 3;  // unequal classes
  for (const std::int64_t count : {0, 1, 7, 50, 96}) {
    const auto [train, validation] = split_validation(set, {.count = count, .seed = 1});
    EXPECT_EQ(static_cast<std::int64_t>(validation.size()), count);
    std::set<std::int64_t> all(train.begin(), train.end());
    all.insert(validation.begin(), validation.end());
    EXPECT_EQ(all.size(), 97U);
    EXPECT_EQ(train.size() + validation.size(), 97U);
    for (std::int32_t label = 0; label < 5; ++label) {
      const auto total = std::count(set.labels.begin(), set.labels.end(), label);
      const auto drawn = std::count_if(validation.begin(), validation.end(), [&](std::int64_t i) {
        return set.labels[static_cast<std::size_t>(i)] == label;
      });
      const double share = static_cast<double>(total * count) / 97;
      EXPECT_LT(std::abs(static_cast<double>(drawn) - share), 1) << "class " << label;
    }
  }
}

TEST(SplitValidation, FollowsTheSeedAndTheFraction) {
  const ImageSet set = generate_images({.count = 200, .height = 1, .width = 1});
  const auto split = split_validation(set, {.fraction = 0.25, .seed = 1});
  EXPECT_EQ(split.validation.size(), 50U);
  EXPECT_EQ(split.validation, split_validation(set, {.fraction = 0.25, .seed = 1}).validation);
  EXPECT_NE(split.validation, split_validation(set, {.fraction = 0.25, .seed = 2}).validation);
  EXPECT_THROW(split_validation(set, {.fraction = 1.0}), Error);
  EXPECT_THROW(split_validation(set, {.fraction = -0.1}), Error);
  EXPECT_THROW(split_validation(set, {.count = 200}), Error);
}

TEST(ImageSet, SubsetCopiesInOrder) {
  const ImageSet set = generate_images({.count = 6, .height = 2, .width = 3, .classes = 6});
  const std::vector<std::int64_t> indices{4, 0, 4};
  const ImageSet part = subset(set, indices);
  check_image_set(part);
  EXPECT_EQ(part.labels, (std::vector<std::int32_t>{4, 0, 4}));
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_TRUE(std::equal(part.pixels.begin() + static_cast<std::int64_t>(i) * 18,
                           part.pixels.begin() + static_cast<std::int64_t>(i + 1) * 18,
                           set.pixels.begin() + indices[i] * 18));
  EXPECT_THROW(subset(set, std::vector<std::int64_t>{6}), Error);
  EXPECT_THROW(subset(set, std::vector<std::int64_t>{-1}), Error);
}

TEST(ImageSet, ChannelStatisticsByHand) {
  ImageSet set{.count = 3,
               .height = 1,
               .width = 2,
               .channels = 2,
               .classes = 1,
               .pixels = {0, 7, 255, 7, 51, 7, 102, 7, 9, 9, 9, 9},
               .labels = {0, 0, 0}};
  // Channel 0 of the first two images: 0, 1, 0.2, 0.4; channel 1 is constant.
  const auto statistics = channel_statistics(set, std::vector<std::int64_t>{0, 1});
  EXPECT_FLOAT_EQ(statistics.mean[0], 0.4F);
  EXPECT_FLOAT_EQ(statistics.std[0], static_cast<float>(std::sqrt(0.56 / 4)));
  EXPECT_FLOAT_EQ(statistics.mean[1], 7 / 255.0F);
  EXPECT_EQ(statistics.std[1], 1.0F);
  EXPECT_THROW(channel_statistics(set, {}), Error);
  EXPECT_THROW(channel_statistics(set, std::vector<std::int64_t>{3}), Error);
}

}  // namespace
}  // namespace nf::nn
