#include "nn/data/training_data.h"

#include <algorithm>
#include <array>

#include "engine/error.h"

namespace nf::nn {
namespace {

// The first images of a set, so that a limit means the same images whatever the seed.
ImageSet limited(ImageSet set, std::int64_t limit, const char* what) {
  NF_CHECK(limit >= 0, "data: the limit of {} images must not be negative, got {}", what, limit);
  if (limit == 0 || limit >= set.count) return set;
  std::vector<std::int64_t> indices = all_indices(set);
  indices.resize(static_cast<std::size_t>(limit));
  return subset(set, indices);
}

TransformOptions transform_options(const ImageSet& train, const IndexSplit& split,
                                   const TrainingDataOptions& options) {
  ChannelStatistics statistics = channel_statistics(train, split.train);
  TransformOptions transform;
  transform.mean = std::move(statistics.mean);
  transform.std = std::move(statistics.std);
  transform.pad_to_height = std::max(options.pad_to, train.height);
  transform.pad_to_width = std::max(options.pad_to, train.width);
  transform.crop_padding = options.crop_padding;
  transform.flip = options.flip;
  return transform;
}

}  // namespace

TrainingData::TrainingData(ImageSet train, ImageSet test, const TrainingDataOptions& options)
    : options_(options) {
  NF_CHECK(options.validation_fraction >= 0.0 && options.validation_fraction < 1.0,
           "data: the validation fraction must be in [0, 1), got {}", options.validation_fraction);
  NF_CHECK(
      train.height == test.height && train.width == test.width && train.channels == test.channels,
      "data: training images are {}x{}x{}, test images {}x{}x{}", train.height, train.width,
      train.channels, test.height, test.width, test.channels);
  NF_CHECK(train.classes == test.classes, "data: {} classes to train on, {} to test", train.classes,
           test.classes);
  train_ = std::make_shared<ImageSet>(limited(std::move(train), options.train_limit, "training"));
  test_ = std::make_shared<ImageSet>(limited(std::move(test), options.test_limit, "test"));
  split_ =
      split_validation(*train_, {.fraction = options.validation_fraction, .seed = options.seed});
  test_indices_ = all_indices(*test_);
  transform_ = Transform(transform_options(*train_, split_, options));
  sample_shape_ = transform_.output_shape(*train_);
}

std::unique_ptr<Loader> TrainingData::train(SampleForm form) const {
  return std::make_unique<Loader>(train_, split_.train, transform_,
                                  LoaderOptions{.shuffle = true,
                                                .augment = augments(),
                                                .form = form,
                                                .seed = options_.seed,
                                                .threads = options_.threads});
}

std::unique_ptr<Loader> TrainingData::in_order(const std::shared_ptr<const ImageSet>& set,
                                               const std::vector<std::int64_t>& indices,
                                               SampleForm form) const {
  return std::make_unique<Loader>(set, indices, transform_,
                                  LoaderOptions{.form = form, .threads = options_.threads});
}

std::unique_ptr<Loader> TrainingData::train_in_order(SampleForm form) const {
  return in_order(train_, split_.train, form);
}
std::unique_ptr<Loader> TrainingData::train_augmented_in_order(SampleForm form) const {
  return std::make_unique<Loader>(
      train_, split_.train, transform_,
      LoaderOptions{
          .augment = augments(), .form = form, .seed = options_.seed, .threads = options_.threads});
}
std::unique_ptr<Loader> TrainingData::validation(SampleForm form) const {
  return in_order(train_, split_.validation, form);
}
std::unique_ptr<Loader> TrainingData::test(SampleForm form) const {
  return in_order(test_, test_indices_, form);
}

namespace {

// Classes counted from the labels must all occur in training: one damaged byte would else make a
// net of up to 256.
void check_counted_classes(const ImageSet& train, const IdxPaths& train_paths, const ImageSet& test,
                           const IdxPaths& test_paths) {
  std::array<bool, 256> seen{};
  for (const std::int32_t label : train.labels) seen[static_cast<std::size_t>(label)] = true;
  const auto check = [&](const ImageSet& set, const IdxPaths& paths) {
    const auto largest = std::max_element(set.labels.begin(), set.labels.end());
    const auto missing = std::find(seen.begin(), seen.begin() + *largest + 1, false);
    if (missing <= seen.begin() + *largest)
      fail_data(
          "{}: byte {}: label {} is {}, but no training image has label {}; where that is meant, "
          "the number of classes must be given",
          paths.labels.string(), 8 + (largest - set.labels.begin()), largest - set.labels.begin(),
          *largest, missing - seen.begin());
  };
  check(train, train_paths);
  check(test, test_paths);
}

}  // namespace

TrainingData load_idx_folder(const std::filesystem::path& folder,
                             const TrainingDataOptions& options) {
  const IdxPaths train_paths = find_idx(folder, Split::train);
  const IdxPaths test_paths = find_idx(folder, Split::test);
  ImageSet train = load_idx_images(train_paths.images, train_paths.labels, options.classes);
  ImageSet test = load_idx_images(test_paths.images, test_paths.labels, options.classes);
  if (options.classes == 0) check_counted_classes(train, train_paths, test, test_paths);
  train.classes = test.classes = std::max(train.classes, test.classes);
  return TrainingData(std::move(train), std::move(test), options);
}

}  // namespace nf::nn
