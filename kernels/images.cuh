// A thread writes one 16-byte vector of the output, taken as a flat array, or one element where the
// output is not aligned or ends.
#pragma once

#include "kernels/divider.h"
#include "kernels/images.h"

namespace nf::NF_TARGET::image_batch {

inline constexpr int kImageThreads = 256;
/// Tables of so many channels fit shared memory.
inline constexpr int kSharedTables = 16;

struct Sizes {
  std::int32_t height, width, channels, out_width;
  std::int32_t out_image, image;  // elements of one image
  Divider by_channels, by_columns;
  bool table_per_channel;
  int shared_values;  // of tables, kept in shared memory; 0: none
};

/// Element `at` of an output image.
NF_DEVICE float image_value(const Sizes& s, const std::uint8_t* image, const ImageWindow& window,
                            const float* tables, std::int32_t at) {
  std::int32_t rest = at;
  const std::int32_t channel = take_remainder(rest, s.by_channels);
  std::int32_t column = take_remainder(rest, s.by_columns);
  if (window.flip != 0) column = s.out_width - 1 - column;
  const std::int64_t y = std::int64_t{rest} + window.top, x = std::int64_t{column} + window.left;
  std::int32_t byte = 0;
  if (y >= 0 && y < s.height && x >= 0 && x < s.width)
    byte = image[(y * s.width + x) * s.channels + channel];
  return tables[(s.table_per_channel ? channel * 256 : 0) + byte];
}

/// The grid's x runs over the images: a block stays within one.
template <typename T>
NF_KERNEL(kImageThreads)
prepare_images_kernel(Sizes s, const std::uint8_t* pixels, const ImageWindow* windows,
                      const float* tables, T* out, std::int64_t count, std::int32_t vectors) {
  constexpr int V = kVec<T>;
  NF_SHARED(float, shared, [kSharedTables * 256]);
  if (s.shared_values > 0) {
    for (int i = static_cast<int>(threadIdx.x); i < s.shared_values; i += kImageThreads)
      shared[i] = tables[i];
    __syncthreads();
    tables = shared;
  }
  const std::int32_t work = vectors + s.out_image - vectors * V;
  for (std::int64_t n = blockIdx.x; n < count; n += gridDim.x) {
    const ImageWindow window = windows[n];
    const std::uint8_t* image = pixels + n * s.image;
    T* target = out + n * s.out_image;
    // Unsigned: a step beyond an image of almost 2^31 elements.
    for (std::uint32_t next = threadIdx.x; next < static_cast<std::uint32_t>(work);
         next += kImageThreads) {
      const auto i = static_cast<std::int32_t>(next);
      if (i < vectors) {
        Vec<T, V> values;
        for (int v = 0; v < V; ++v)
          values.v[v] = from_float<T>(image_value(s, image, window, tables, i * V + v));
        store_vec(target + i * V, values);
      } else {
        const std::int32_t at = vectors * V + (i - vectors);
        target[at] = from_float<T>(image_value(s, image, window, tables, at));
      }
    }
  }
}

}  // namespace nf::NF_TARGET::image_batch
