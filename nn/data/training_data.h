// A data set made ready for training: split, normalised, with a loader for each use.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "nn/data/image_set.h"
#include "nn/data/loader.h"
#include "nn/data/transform.h"

namespace nf::nn {

struct TrainingDataOptions {
  double validation_fraction = 0.1;  ///< taken from the training set, class by class
  std::int64_t train_limit = 0;   ///< images used of the training set, validation included; 0: all
  std::int64_t test_limit = 0;    ///< images used of the test set; 0: all
  std::int64_t pad_to = 32;       ///< smaller images are centred in this size; 0: as they are
  std::int64_t crop_padding = 0;  ///< augmentation
  bool flip = false;              ///< augmentation
  std::uint64_t seed = 0;         ///< of the split, the order and the augmentation
  int threads = 1;                ///< that prepare batches
  /// Of the files that load_idx_folder reads; 0: the largest label in them plus one, at least 2,
  /// and every label below it must occur in training.
  std::int64_t classes = 0;
};

class TrainingData {
 public:
  /// Normalises by mean and standard deviation of the training part.
  /// Throws Error for sets that don't match each other and for bad options.
  TrainingData(ImageSet train, ImageSet test, const TrainingDataOptions& options);

  Shape sample_shape() const { return sample_shape_; }
  std::int64_t classes() const { return train_->classes; }
  std::int64_t train_count() const { return static_cast<std::int64_t>(split_.train.size()); }
  std::int64_t validation_count() const {
    return static_cast<std::int64_t>(split_.validation.size());
  }
  std::int64_t test_count() const { return static_cast<std::int64_t>(test_indices_.size()); }
  /// Whether images differ from epoch to epoch.
  bool augments() const { return options_.crop_padding > 0 || options_.flip; }
  const TransformOptions& transform() const { return transform_.options(); }

  /// The images themselves, and which of the first set train and which validate.
  const ImageSet& train_images() const { return *train_; }
  const ImageSet& test_images() const { return *test_; }
  const IndexSplit& split() const { return split_; }
  /// Of split, order and augmentation.
  std::uint64_t seed() const { return options_.seed; }

  /// What loaders of pixels hand out.
  PixelFormat pixel_format() const { return transform_.pixel_format(*train_); }

  /// Shuffled and augmented, anew each epoch.
  std::unique_ptr<Loader> train(SampleForm form = SampleForm::values) const;
  /// The same images in order, not augmented.
  std::unique_ptr<Loader> train_in_order(SampleForm form = SampleForm::values) const;
  /// In order too, each augmented as in the same epoch of train().
  std::unique_ptr<Loader> train_augmented_in_order(SampleForm form = SampleForm::values) const;
  std::unique_ptr<Loader> validation(SampleForm form = SampleForm::values) const;
  std::unique_ptr<Loader> test(SampleForm form = SampleForm::values) const;

 private:
  std::unique_ptr<Loader> in_order(const std::shared_ptr<const ImageSet>& set,
                                   const std::vector<std::int64_t>& indices, SampleForm form) const;

  std::shared_ptr<const ImageSet> train_;
  std::shared_ptr<const ImageSet> test_;
  TrainingDataOptions options_;
  IndexSplit split_;
  std::vector<std::int64_t> test_indices_;
  Transform transform_;
  Shape sample_shape_;
};

/// Reads train-images-idx3-ubyte and its three companions (each with or without .gz) from a folder.
/// Throws DataError, also for labels that don't fit options.classes.
TrainingData load_idx_folder(const std::filesystem::path& folder,
                             const TrainingDataOptions& options);

}  // namespace nf::nn
