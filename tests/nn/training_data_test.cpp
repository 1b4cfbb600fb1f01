#include "nn/data/training_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/error.h"

namespace nf::nn {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

using Numbers = std::vector<std::int64_t>;

/// At most 256 grey images of one row; every pixel of image i is i, its label is i % classes.
ImageSet numbered(std::int64_t count, std::int64_t classes = 4) {
  ImageSet set;
  set.count = count;
  set.height = set.channels = 1;
  set.width = 2;
  set.classes = classes;
  for (std::int64_t i = 0; i < count; ++i) {
    set.pixels.insert(set.pixels.end(), 2, static_cast<std::uint8_t>(i));
    set.labels.push_back(static_cast<std::int32_t>(i % classes));
  }
  return set;
}

TrainingDataOptions unpadded() { return {.validation_fraction = 0.25, .pad_to = 0}; }

TrainingData make_data(const TrainingDataOptions& options) {
  return TrainingData(numbered(100), numbered(20), options);
}

/// The numbers of the images that a loader reads, found by undoing the normalisation.
Numbers read(const TrainingData& data, Loader& loader, std::int64_t epoch = 1) {
  const TransformOptions& transform = data.transform();
  Numbers numbers;
  loader.start(7, epoch);
  while (const Batch* batch = loader.next())
    for (std::int64_t i = 0; i < batch->size; ++i) {
      const float value = batch->images[static_cast<std::size_t>(2 * i)];
      numbers.push_back(std::lround((value * transform.std[0] + transform.mean[0]) * 255));
      EXPECT_EQ(batch->labels[static_cast<std::size_t>(i)], numbers.back() % data.classes());
    }
  return numbers;
}

Numbers first(std::int64_t count) {
  Numbers numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

Numbers joined(Numbers a, const Numbers& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::sort(a.begin(), a.end());
  return a;
}

TEST(TrainingData, RefusesSetsThatDoNotMatch) {
  const auto with = [](ImageSet test) {
    return [test = std::move(test)] { TrainingData(numbered(20), test, unpadded()); };
  };
  ImageSet turned = numbered(10), coloured = numbered(10);
  std::swap(turned.height, turned.width);
  coloured.width = 1;
  coloured.channels = 2;
  EXPECT_THAT(with(turned), ThrowsMessage<Error>(AllOf(HasSubstr("training images are 1x2x1"),
                                                       HasSubstr("test images 2x1x1"))));
  EXPECT_THAT(with(coloured), ThrowsMessage<Error>(HasSubstr("test images 1x1x2")));
  EXPECT_THAT(with(numbered(10, 5)),
              ThrowsMessage<Error>(HasSubstr("4 classes to train on, 5 to test")));
}

TEST(TrainingData, RefusesNonsense) {
  const auto with = [](TrainingDataOptions options) { return [=] { make_data(options); }; };
  TrainingDataOptions options = unpadded();
  for (const double fraction : {-0.1, 1.0, std::nan("")}) {
    options.validation_fraction = fraction;
    EXPECT_THAT(with(options), ThrowsMessage<Error>(HasSubstr("fraction must be in [0, 1)")));
  }
  options = unpadded();
  options.train_limit = -1;
  EXPECT_THAT(with(options), ThrowsMessage<Error>(AllOf(HasSubstr("training"), HasSubstr("-1"))));
  options = unpadded();
  options.test_limit = -2;
  EXPECT_THAT(with(options), ThrowsMessage<Error>(AllOf(HasSubstr("test"), HasSubstr("-2"))));
}

TEST(TrainingData, LimitsTakeTheFirstImages) {
  TrainingDataOptions options = unpadded();
  options.train_limit = 40;
  options.test_limit = 6;
  const TrainingData data = make_data(options);
  EXPECT_EQ(data.train_count(), 30);
  EXPECT_EQ(data.validation_count(), 10);
  EXPECT_EQ(data.test_count(), 6);
  EXPECT_EQ(joined(read(data, *data.train_in_order()), read(data, *data.validation())), first(40));
  EXPECT_EQ(read(data, *data.test()), first(6));
}

TEST(TrainingData, ALimitBeyondTheSetTakesAll) {
  TrainingDataOptions options = unpadded();
  options.train_limit = 101;
  options.test_limit = 20;
  const TrainingData data = make_data(options);
  EXPECT_EQ(data.train_count() + data.validation_count(), 100);
  EXPECT_EQ(data.test_count(), 20);
}

TEST(TrainingData, TheSplitIsDisjointAndFollowsTheSeed) {
  TrainingDataOptions options = unpadded();
  const auto validation = [&](std::uint64_t seed) {
    options.seed = seed;
    const TrainingData data = make_data(options);
    const Numbers drawn = read(data, *data.validation());
    EXPECT_EQ(drawn.size(), 25U);
    EXPECT_EQ(joined(read(data, *data.train_in_order()), drawn), first(100));
    return drawn;
  };
  EXPECT_EQ(validation(1), validation(1));
  EXPECT_NE(validation(1), validation(2));
}

TEST(TrainingData, WithoutAFractionThereIsNoValidation) {
  TrainingDataOptions options = unpadded();
  options.validation_fraction = 0;
  const TrainingData data = make_data(options);
  EXPECT_EQ(data.train_count(), 100);
  EXPECT_EQ(data.validation_count(), 0);
  EXPECT_THAT(read(data, *data.validation()), IsEmpty());
}

TEST(TrainingData, EachEpochReadsTheTrainingPartInAnotherOrder) {
  const TrainingData data = make_data(unpadded());
  const auto loader = data.train(), in_order = data.train_in_order();
  const Numbers all = read(data, *in_order), epoch = read(data, *loader, 1);
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
  EXPECT_NE(epoch, all);
  EXPECT_NE(epoch, read(data, *loader, 2));
  EXPECT_EQ(epoch, read(data, *loader, 1));
  EXPECT_EQ(joined(epoch, {}), all);
}

// What is left aside to judge by must not leak into what is trained on.
TEST(TrainingData, OnlyTheTrainingPartIsMeasured) {
  const TrainingData data = make_data(unpadded());
  const Numbers trained = read(data, *data.train_in_order());
  double mean = 0, squares = 0;
  for (const std::int64_t number : trained) mean += static_cast<double>(number) / 255 / 75;
  for (const std::int64_t number : trained)
    squares += std::pow(static_cast<double>(number) / 255 - mean, 2) / 75;
  ASSERT_THAT(data.transform().mean, ElementsAre(testing::FloatEq(static_cast<float>(mean))));
  ASSERT_THAT(data.transform().std,
              ElementsAre(testing::FloatEq(static_cast<float>(std::sqrt(squares)))));

  ImageSet changed = numbered(100), changed_test = numbered(20);
  for (const std::int64_t number : read(data, *data.validation()))
    std::fill_n(changed.pixels.begin() + 2 * number, 2, std::uint8_t{255});
  std::fill(changed_test.pixels.begin(), changed_test.pixels.end(), std::uint8_t{255});
  const TrainingData other(std::move(changed), std::move(changed_test), unpadded());
  EXPECT_EQ(other.transform().mean, data.transform().mean);
  EXPECT_EQ(other.transform().std, data.transform().std);
}

TEST(TrainingData, SmallImagesAreCentredInTheSizeAsked) {
  TrainingDataOptions options = unpadded();
  options.pad_to = 8;
  EXPECT_EQ(make_data(options).sample_shape(), (Shape{8, 8, 1}));
  options.pad_to = 1;  // not below what the images have
  EXPECT_EQ(make_data(options).sample_shape(), (Shape{1, 2, 1}));
  EXPECT_EQ(make_data(unpadded()).sample_shape(), (Shape{1, 2, 1}));
}

TEST(TrainingData, AMissingFolderIsNamed) {
  EXPECT_THAT([] { load_idx_folder("/nowhere/at all", unpadded()); },
              ThrowsMessage<DataError>(HasSubstr("/nowhere/at all")));
}

}  // namespace
}  // namespace nf::nn
