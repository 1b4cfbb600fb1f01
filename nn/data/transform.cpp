#include "nn/data/transform.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace nf::nn {
namespace {

using Table = std::array<float, 256>;

// Beyond it a size is a mistake, and an ImageWindow could not tell where the image lies.
constexpr std::int64_t kMostSize = std::int64_t{1} << 29;

/// Where the output window lies in the stored image, and how pixels become floats.
struct Window {
  std::int64_t height, width, channels;  // of the output
  std::int64_t top, left;                // of the window in the source; outside it all is black
  bool flip;
  const Table* tables;
  std::int64_t table_step;  // 0: all channels share the first table
};

/// `kChannels` as a constant lets the compiler unroll the usual cases; 0: known at run time.
template <int kChannels>
void write_pixels(const Window& window, const std::uint8_t* pixel, std::int64_t count,
                  std::int64_t step, float* out) {
  const std::int64_t channels = kChannels > 0 ? kChannels : window.channels;
  for (std::int64_t i = 0; i < count; ++i, pixel += step, out += channels)
    for (std::int64_t c = 0; c < channels; ++c)
      out[c] = window.tables[c * window.table_step][pixel[c]];
}

template <int kChannels>
void write_black(const Window& window, std::int64_t count, float* out) {
  const std::int64_t channels = kChannels > 0 ? kChannels : window.channels;
  for (std::int64_t i = 0; i < count; ++i, out += channels)
    for (std::int64_t c = 0; c < channels; ++c) out[c] = window.tables[c * window.table_step][0];
}

template <int kChannels>
void write_window(const Window& window, const ImageSet& set, const std::uint8_t* image,
                  float* out) {
  const std::int64_t channels = window.channels;
  // Columns of the window, before any flip, that show the image: [first, last).
  const std::int64_t first = std::clamp<std::int64_t>(-window.left, 0, window.width);
  const std::int64_t last = std::clamp(set.width - window.left, first, window.width);
  const std::int64_t begin = window.flip ? window.width - last : first;
  const std::int64_t shown = last - first;
  const std::int64_t from = window.flip ? window.left + last - 1 : window.left + first;
  const std::int64_t step = window.flip ? -channels : channels;

  for (std::int64_t y = 0; y < window.height; ++y, out += window.width * channels) {
    const std::int64_t row = window.top + y;
    if (row < 0 || row >= set.height || shown == 0) {
      write_black<kChannels>(window, window.width, out);
      continue;
    }
    write_black<kChannels>(window, begin, out);
    write_pixels<kChannels>(window, image + (row * set.width + from) * channels, shown, step,
                            out + begin * channels);
    write_black<kChannels>(window, window.width - begin - shown, out + (begin + shown) * channels);
  }
}

}  // namespace

Transform::Transform(TransformOptions options) : options_(std::move(options)) {
  const auto& [mean, std, pad_height, pad_width, crop_padding, flip] = options_;
  NF_CHECK(pad_height >= 0 && pad_width >= 0 && crop_padding >= 0,
           "transform: sizes must not be negative, are pad {}x{} and crop {}", pad_height,
           pad_width, crop_padding);
  NF_CHECK(std::max({pad_height, pad_width, crop_padding}) <= kMostSize,
           "transform: sizes must be at most {}, are pad {}x{} and crop {}", kMostSize, pad_height,
           pad_width, crop_padding);
  NF_CHECK(mean.empty() || std.empty() || mean.size() == std.size(),
           "transform: mean and std need one value per channel, have {} and {}", mean.size(),
           std.size());
  tables_.resize(std::max({mean.size(), std.size(), std::size_t{1}}));
  for (std::size_t c = 0; c < tables_.size(); ++c) {
    const float centre = mean.empty() ? 0.0F : mean[c];
    const float spread = std.empty() ? 1.0F : std[c];
    NF_CHECK(std::isfinite(centre) && std::isfinite(spread) && spread > 0,
             "transform: channel {} needs a finite mean and a positive std, has {} and {}", c,
             centre, spread);
    for (std::size_t value = 0; value < 256; ++value)
      tables_[c][value] = (static_cast<float>(value) / 255.0F - centre) / spread;
  }
}

Shape Transform::output_shape(const ImageSet& set) const {
  const bool statistics = !options_.mean.empty() || !options_.std.empty();
  NF_CHECK(!statistics || static_cast<std::int64_t>(tables_.size()) == set.channels,
           "transform: mean and std need one value per channel, have {} for {} channels",
           tables_.size(), set.channels);
  const std::int64_t height = options_.pad_to_height > 0 ? options_.pad_to_height : set.height;
  const std::int64_t width = options_.pad_to_width > 0 ? options_.pad_to_width : set.width;
  NF_CHECK(height >= set.height && width >= set.width,
           "transform: the padded size must not be smaller than the image, {}x{} < {}x{}", height,
           width, set.height, set.width);
  return {height, width, set.channels};
}

ImageWindow Transform::window(const ImageSet& set, RandomStream* augment) const {
  const Shape shape = output_shape(set);
  std::int64_t top = -((shape[0] - set.height) / 2), left = -((shape[1] - set.width) / 2);
  bool flip = false;
  if (augment && options_.crop_padding > 0) {
    const auto moves = static_cast<std::uint64_t>(2 * options_.crop_padding + 1);
    top += static_cast<std::int64_t>(augment->below(moves)) - options_.crop_padding;
    left += static_cast<std::int64_t>(augment->below(moves)) - options_.crop_padding;
  }
  if (augment && options_.flip) flip = augment->uniform() < 0.5F;
  return {static_cast<std::int32_t>(top), static_cast<std::int32_t>(left), flip ? 1 : 0};
}

std::vector<float> Transform::tables() const {
  std::vector<float> values;
  for (const Table& table : tables_) values.insert(values.end(), table.begin(), table.end());
  return values;
}

PixelFormat Transform::pixel_format(const ImageSet& set) const {
  return {{set.height, set.width, set.channels}, static_cast<std::int64_t>(tables_.size())};
}

void Transform::apply(const ImageSet& set, std::int64_t index, float* out,
                      RandomStream* augment) const {
  const Shape shape = output_shape(set);
  NF_CHECK(index >= 0 && index < set.count, "transform: index must be in [0, {}), is {}", set.count,
           index);
  const ImageWindow shown = this->window(set, augment);
  const std::int64_t channels = shape[2];
  const Window window{.height = shape[0],
                      .width = shape[1],
                      .channels = channels,
                      .top = shown.top,
                      .left = shown.left,
                      .flip = shown.flip != 0,
                      .tables = tables_.data(),
                      .table_step = tables_.size() > 1 ? 1 : 0};
  const std::uint8_t* image = set.pixels.data() + index * set.image_size();
  switch (channels) {
    case 1:
      return write_window<1>(window, set, image, out);
    case 3:
      return write_window<3>(window, set, image, out);
    default:
      return write_window<0>(window, set, image, out);
  }
}

}  // namespace nf::nn
