// From stored pixels to what a network reads, on the device: padded, cropped, flipped, normalised.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/stream.h"

namespace nf::NF_TARGET {

struct ImageBatch {
  std::int64_t count = 0;
  std::int64_t height = 0, width = 0, channels = 0;  ///< as stored
  std::int64_t out_height = 0, out_width = 0;
  bool table_per_channel = false;
};

/// Where an output lies in its stored image; outside of that all pixels are black, raw zeros.
struct ImageWindow {
  std::int32_t top = 0, left = 0;
  std::int32_t flip = 0;  ///< not 0: mirrored left to right
};

/// out (count, out_height, out_width, channels): the windows of pixels (count, height, width,
/// channels), each byte replaced by its value in tables (channels, or 1, by 256). Height times
/// width times channels of one image, in and out, must be below 2^31. Templates exist for float,
/// bf16, f16; stored rounded to nearest.
/// Must move the pixels that windows show once, out once; does, with whole rows of those pixels
/// and, of each block, the tables, both kept in shared memory: tables of more than 16 channels are
/// read from the cache, as are, byte by byte, rows of more than 8 KiB. Else loads have 16 bytes but
/// at the ends of a band of rows, and stores where out is aligned.
/// Throws KernelError beyond the limits.
template <typename T>
void prepare_images(Stream stream, const ImageBatch& batch, const std::uint8_t* pixels,
                    const ImageWindow* windows, const float* tables, T* out);

}  // namespace nf::NF_TARGET
