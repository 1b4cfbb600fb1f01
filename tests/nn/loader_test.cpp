#include "nn/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>

#include "engine/error.h"

namespace nf::nn {
namespace {

constexpr std::int64_t kCount = 203;

std::shared_ptr<ImageSet> make_set() {
  return std::make_shared<ImageSet>(
      generate_images({.count = kCount, .height = 6, .width = 5, .channels = 3, .seed = 9}));
}

Transform make_transform() {
  return Transform({.mean = {0.5F, 0.4F, 0.3F},
                    .std = {0.2F, 0.3F, 0.4F},
                    .pad_to_height = 8,
                    .pad_to_width = 8,
                    .crop_padding = 2,
                    .flip = true});
}

struct Epoch {
  std::vector<std::int64_t> sizes;
  std::vector<float> images;
  std::vector<std::uint8_t> pixels;
  std::vector<std::int32_t> windows;
  std::vector<std::int32_t> labels;
  bool operator==(const Epoch&) const = default;
};

void append(Epoch& epoch, const Batch& batch) {
  epoch.images.insert(epoch.images.end(), batch.images.begin(), batch.images.end());
  epoch.pixels.insert(epoch.pixels.end(), batch.pixels.begin(), batch.pixels.end());
  for (const ImageWindow& window : batch.windows)
    epoch.windows.insert(epoch.windows.end(), {window.top, window.left, window.flip});
  epoch.labels.insert(epoch.labels.end(), batch.labels.begin(), batch.labels.end());
}

/// Reads what is left of an epoch, checking that every batch is what it says.
Epoch read_rest(BatchSource& source) {
  Epoch epoch;
  while (const Batch* batch = source.next()) {
    EXPECT_EQ(static_cast<std::int64_t>(batch->labels.size()), batch->size);
    host_batch(*batch, source.sample_shape());
    epoch.sizes.push_back(batch->size);
    append(epoch, *batch);
  }
  return epoch;
}

Epoch read_epoch(BatchSource& source, std::int64_t batch, std::int64_t epoch) {
  source.start(batch, epoch);
  return read_rest(source);
}

Loader make_loader(LoaderOptions options) {
  const auto set = make_set();
  return Loader(set, all_indices(*set), make_transform(), options);
}

TEST(Loader, UnshuffledOrderIsThatOfTheIndices) {
  const auto set = make_set();
  std::vector<std::int64_t> indices{7, 3, 3, 200, 0, 11, 12};
  const Transform transform = make_transform();
  Loader loader(set, indices, transform);
  EXPECT_EQ(loader.count(), 7);
  EXPECT_EQ(loader.sample_shape(), (Shape{8, 8, 3}));
  const Epoch epoch = read_epoch(loader, 3, 0);
  EXPECT_EQ(epoch.sizes, (std::vector<std::int64_t>{3, 3, 1}));
  std::vector<float> expected(8 * 8 * 3);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    transform.apply(*set, indices[i], expected.data(), nullptr);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                           epoch.images.begin() + static_cast<std::int64_t>(i * 192)));
    EXPECT_EQ(epoch.labels[i], set->labels[static_cast<std::size_t>(indices[i])]);
    const Batch sample = loader.read(static_cast<std::int64_t>(i), 1, 0);
    EXPECT_EQ(sample.labels, std::vector{epoch.labels[i]});
    EXPECT_EQ(sample.images, expected);
  }
  EXPECT_EQ(loader.read(0, 7, 0).images, epoch.images);
  EXPECT_THROW(loader.read(7, 1, 0), Error);
  EXPECT_THROW(loader.read(-1, 1, 0), Error);
  EXPECT_THROW(loader.read(3, 5, 0), Error);
  EXPECT_THROW(loader.read(3, 0, 0), Error);
}

TEST(Loader, PixelsAreThoseStoredWithTheTransformsWindows) {
  const auto set = make_set();
  const std::vector<std::int64_t> indices{7, 200, 0};
  const Transform transform = make_transform();
  Loader loader(set, indices, transform, {.form = SampleForm::pixels});
  EXPECT_EQ(loader.format(), (PixelFormat{{6, 5, 3}, 3}));
  loader.start(3, 0);
  const Batch* batch = loader.next();
  ASSERT_NE(batch, nullptr);
  EXPECT_TRUE(batch->images.empty());
  EXPECT_EQ(batch->tables, transform.tables());
  EXPECT_EQ(batch->pixels, loader.read(0, 3, 0).pixels);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto stored = set->pixels.begin() + indices[i] * 90;
    EXPECT_TRUE(std::equal(stored, stored + 90,
                           batch->pixels.begin() + static_cast<std::ptrdiff_t>(90 * i)));
    EXPECT_EQ(batch->windows[i].top, -1);
    EXPECT_EQ(batch->windows[i].left, -1);
    EXPECT_EQ(batch->windows[i].flip, 0);
  }
}

class LoaderForms : public testing::TestWithParam<SampleForm> {};
INSTANTIATE_TEST_SUITE_P(Forms, LoaderForms,
                         testing::Values(SampleForm::values, SampleForm::pixels),
                         [](const auto& info) {
                           return info.param == SampleForm::pixels ? "pixels" : "values";
                         });

TEST_P(LoaderForms, ReadsWhatItHandsOutInTheSameEpoch) {
  Loader loader = make_loader({.augment = true, .form = GetParam(), .seed = 4});
  const std::int64_t count = loader.count();
  const auto read = [&](std::int64_t epoch) {
    Epoch samples{.sizes = {count}, .images = {}, .pixels = {}, .windows = {}, .labels = {}};
    for (std::int64_t first = 0; first < count; first += 60) {
      const Batch part = loader.read(first, std::min<std::int64_t>(60, count - first), epoch);
      append(samples, part);
    }
    return samples;
  };
  for (const std::int64_t epoch : {0, 3})
    EXPECT_TRUE(read(epoch) == read_epoch(loader, count, epoch));
  EXPECT_FALSE(read(0) == read(3));
  EXPECT_THROW(loader.read(0, 1, -1), Error);
}

TEST_P(LoaderForms, ThreadsAndPrefetchChangeNoBit) {
  LoaderOptions options{.shuffle = true, .augment = true, .form = GetParam(), .seed = 4};
  Loader one = make_loader(options);
  const Epoch expected = read_epoch(one, 50, 3);
  EXPECT_EQ(expected.sizes, (std::vector<std::int64_t>{50, 50, 50, 50, 3}));
  for (const int threads : {1, 2, 5})
    for (const std::int64_t prefetch : {1, 2, 7}) {
      options.threads = threads;
      options.prefetch_batches = prefetch;
      Loader loader = make_loader(options);
      EXPECT_EQ(read_epoch(loader, 50, 3), expected) << threads << " threads, " << prefetch;
      // Another epoch between, and other batches, leave no trace.
      read_epoch(loader, 64, 4);
      EXPECT_EQ(read_epoch(loader, 50, 3), expected) << threads << " threads, again";
      const Epoch whole = read_epoch(loader, 1000, 3);
      EXPECT_EQ(whole.sizes, std::vector<std::int64_t>{kCount});
      EXPECT_EQ(whole.images, expected.images);
      EXPECT_EQ(whole.labels, expected.labels);
    }
}

TEST(Loader, EverySampleComesOncePerShuffledEpoch) {
  const auto set = make_set();
  // Labels that number the samples.
  set->classes = kCount;
  std::iota(set->labels.begin(), set->labels.end(), 0);
  Loader loader(set, all_indices(*set), Transform(), {.shuffle = true, .threads = 2});
  for (const std::int64_t batch : {1, 17, 203, 204}) {
    Epoch epoch = read_epoch(loader, batch, batch);
    EXPECT_FALSE(std::is_sorted(epoch.labels.begin(), epoch.labels.end()));
    std::sort(epoch.labels.begin(), epoch.labels.end());
    EXPECT_EQ(epoch.labels, set->labels);
  }
}

TEST(Loader, SeedsAndEpochsDiffer) {
  Loader shuffled = make_loader({.shuffle = true, .seed = 1});
  Loader other = make_loader({.shuffle = true, .seed = 2});
  EXPECT_NE(read_epoch(shuffled, 64, 0).images, read_epoch(shuffled, 64, 1).images);
  EXPECT_NE(read_epoch(shuffled, 64, 0).images, read_epoch(other, 64, 0).images);

  Loader augmented = make_loader({.augment = true, .seed = 1});
  const Epoch first = read_epoch(augmented, 64, 0), second = read_epoch(augmented, 64, 1);
  EXPECT_EQ(first.labels, second.labels);
  EXPECT_NE(first.images, second.images);

  Loader plain = make_loader({.seed = 1});
  EXPECT_EQ(read_epoch(plain, 64, 0), read_epoch(plain, 64, 1));
}

TEST(Loader, AugmentationBelongsToTheSampleNotToItsPlace) {
  const auto set = make_set();
  const LoaderOptions options{.augment = true, .seed = 1};
  Loader forward(set, {5, 6, 7}, make_transform(), options);
  Loader backward(set, {7, 6, 5}, make_transform(), options);
  const Epoch a = read_epoch(forward, 1, 2), b = read_epoch(backward, 2, 2);
  for (std::int64_t i = 0; i < 3; ++i)
    EXPECT_TRUE(std::equal(a.images.begin() + i * 192, a.images.begin() + (i + 1) * 192,
                           b.images.begin() + (2 - i) * 192));
}

TEST(Loader, RestartsInTheMiddleOfAnEpoch) {
  Loader fresh = make_loader({.shuffle = true, .augment = true});
  const Epoch expected = read_epoch(fresh, 8, 1);
  Loader loader = make_loader({.shuffle = true, .augment = true, .threads = 3});
  for (int read = 0; read < 20; ++read) {
    loader.start(8 + read, read);
    for (int i = 0; i < read % 6; ++i) ASSERT_NE(loader.next(), nullptr);
  }
  EXPECT_EQ(read_epoch(loader, 8, 1), expected);
  EXPECT_EQ(loader.next(), nullptr);
}

TEST(Loader, EndsWhileThreadsAreBusy) {
  for (int i = 0; i < 20; ++i) {
    Loader loader = make_loader({.shuffle = true, .threads = 3, .prefetch_batches = 50});
    loader.start(4, i);
    for (int read = 0; read < i % 3; ++read) ASSERT_NE(loader.next(), nullptr);
  }
}

TEST(Loader, ABatchStaysValidUntilTheNextCall) {
  Loader loader = make_loader({.shuffle = true, .threads = 2, .prefetch_batches = 1});
  loader.start(8, 0);
  const Batch* batch = loader.next();
  const Batch copy = *batch;
  // Time for the threads to run ahead as far as they may.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(batch->images, copy.images);
  EXPECT_EQ(batch->labels, copy.labels);
}

TEST(Loader, AnExceptionOfAThreadReachesNextInItsPlace) {
  const auto set = make_set();
  Loader loader(set, all_indices(*set), make_transform(), {.threads = 2});
  set->count = 100;  // behind the loader's back: image 100 and those after it are gone
  loader.start(30, 0);
  for (int i = 0; i < 3; ++i) EXPECT_NE(loader.next(), nullptr);
  EXPECT_THROW(loader.next(), Error);
  EXPECT_THROW(loader.next(), Error);
  loader.start(30, 0);
  EXPECT_NE(loader.next(), nullptr);
  loader.start(1, 0);  // pauses the threads
  for (int i = 0; i < 100; ++i) EXPECT_NE(loader.next(), nullptr);
  EXPECT_THROW(loader.next(), Error);
}

TEST(Loader, RefusesWhatDoesNotFit) {
  const auto set = make_set();
  const Transform plain;
  EXPECT_THROW(Loader(nullptr, {}, plain), Error);
  EXPECT_THROW(Loader(set, {kCount}, plain), Error);
  EXPECT_THROW(Loader(set, {-1}, plain), Error);
  EXPECT_THROW(Loader(set, {0}, plain, {.threads = 0}), Error);
  EXPECT_THROW(Loader(set, {0}, plain, {.prefetch_batches = 0}), Error);
  EXPECT_THROW(Loader(set, {0}, Transform({.mean = {0.5F}, .std = {1.0F}})), Error);
  Loader loader(set, {0}, plain);
  EXPECT_THROW(loader.next(), Error);
  EXPECT_THROW(loader.start(0, 0), Error);
  EXPECT_THROW(loader.start(1, -1), Error);
}

TEST(Loader, NoSamplesMakeAnEmptyEpoch) {
  Loader loader(make_set(), {}, Transform());
  loader.start(4, 0);
  EXPECT_EQ(loader.next(), nullptr);
}

TEST(Loader, CountsTheTimeItWaits) {
  // A thread prepares one image after the other, the consumer does nothing but ask for the next.
  const auto set = std::make_shared<ImageSet>(
      generate_images({.count = 64, .height = 256, .width = 256, .channels = 3, .seed = 9}));
  Loader loader(set, all_indices(*set), Transform(),
                {.shuffle = true, .threads = 1, .prefetch_batches = 1});
  EXPECT_EQ(loader.wait_seconds(), 0.0);
  const auto begin = std::chrono::steady_clock::now();
  for (int epoch = 0; epoch < 5; ++epoch) {
    loader.start(1, epoch);
    while (loader.next()) {
    }
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(loader.wait_seconds(), 0.0);
  EXPECT_LE(loader.wait_seconds(), wall.count());
}

}  // namespace
}  // namespace nf::nn
