// From stored pixels to what a network reads: padded, augmented, normalised floats.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/random.h"
#include "engine/shape.h"
#include "nn/data/batch.h"
#include "nn/data/image_set.h"

namespace nf::nn {

struct TransformOptions {
  std::vector<float> mean;  // (channels), of value / 255; empty: 0
  std::vector<float> std;   // (channels); empty: 1
  /// The image is centred in this size (an odd row or column more goes below or right); 0: as is.
  std::int64_t pad_to_height = 0;
  std::int64_t pad_to_width = 0;
  /// Augmentation: a window of the padded image, moved by up to this many pixels each way.
  std::int64_t crop_padding = 0;
  /// Augmentation: mirrored left to right for every other sample on average.
  bool flip = false;
};

/// Pads with black pixels (raw zeros), crops, flips, then normalises: (value / 255 - mean) / std.
/// So padding has the value of a black pixel, as with Pad before Normalize in torchvision. A device
/// does the same from what window and tables tell (engine/ops/prepare_images.h).
class Transform {
 public:
  /// Throws Error for sizes below 0 or above 2^29, statistics of different lengths or a std that is
  /// not positive.
  explicit Transform(TransformOptions options = {});

  const TransformOptions& options() const { return options_; }

  /// (H, W, C) of what apply writes. Throws Error where the set does not fit these options.
  Shape output_shape(const ImageSet& set) const;

  /// Where the output lies in the stored image of such a set. Crop and flip are drawn from
  /// `augment`; null: the centre, not flipped.
  ImageWindow window(const ImageSet& set, RandomStream* augment) const;
  /// The normalised value of each byte: (channels, or 1 for all of them, by 256).
  std::vector<float> tables() const;
  /// What stored pixels, windows and tables of such a set look like together.
  PixelFormat pixel_format(const ImageSet& set) const;

  /// Writes the window of image `index`, normalised, as (H, W, C) floats. Throws Error where the
  /// set does not fit or the index is out of range.
  void apply(const ImageSet& set, std::int64_t index, float* out, RandomStream* augment) const;

 private:
  TransformOptions options_;
  /// Per channel the normalised value of each byte; one table for all channels without statistics.
  std::vector<std::array<float, 256>> tables_;
};

}  // namespace nf::nn
