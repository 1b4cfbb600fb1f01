#include "kernels/images.cuh"

#include <algorithm>
#include <limits>
#include <string>

namespace nf::NF_TARGET {
namespace {

using namespace image_batch;

// Blocks share their tables between the bands they see to.
constexpr std::int64_t kMostBlocks = 2048;
// Bands of about so many elements keep all of a GPU busy with few large images too.
constexpr std::int32_t kBandElements = 16384;
// So many rows of any width are a whole number of 16-byte vectors of any type.
constexpr std::int32_t kAlignedRows = 8;

/// Rows of the output in a band: whole images where they are small.
std::int32_t band_rows(const Sizes& s) {
  const std::int32_t stored = s.row > 0 ? kStagedBytes / s.row : s.out_height;
  const std::int32_t rows = std::max(std::min(stored, kBandElements / s.out_row), 1);
  if (rows >= s.out_height) return s.out_height;
  return rows >= kAlignedRows ? rows / kAlignedRows * kAlignedRows : rows;
}

/// Elements of an image. Throws KernelError where 31 bits do not count them.
std::int32_t elements(const char* which, std::int64_t height, std::int64_t width,
                      std::int64_t channels) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (height > kMost || width > kMost || channels > kMost || height * width > kMost / channels)
    throw KernelError(std::string("prepare_images: an image ") + which + " of " +
                      std::to_string(height) + "x" + std::to_string(width) + "x" +
                      std::to_string(channels) + " has 2^31 elements or more");
  return static_cast<std::int32_t>(height * width * channels);
}

}  // namespace

template <typename T>
void prepare_images(Stream stream, const ImageBatch& batch, const std::uint8_t* pixels,
                    const ImageWindow* windows, const float* tables, T* out) {
  if (batch.count == 0 || batch.channels == 0 || batch.out_height == 0 || batch.out_width == 0)
    return;
  Sizes s{};
  s.image = elements("in", batch.height, batch.width, batch.channels);
  s.out_image = elements("out", batch.out_height, batch.out_width, batch.channels);
  s.height = static_cast<std::int32_t>(batch.height);
  s.width = static_cast<std::int32_t>(batch.width);
  s.channels = static_cast<std::int32_t>(batch.channels);
  s.out_height = static_cast<std::int32_t>(batch.out_height);
  s.out_width = static_cast<std::int32_t>(batch.out_width);
  s.row = s.height > 0 ? s.image / s.height : 0;
  s.out_row = s.out_image / s.out_height;
  s.band_rows = band_rows(s);
  s.bands = (s.out_height - 1) / s.band_rows + 1;
  s.staged = std::int64_t{s.row} * std::min(s.band_rows, s.height) <= kStagedBytes;
  s.by_channels = make_divider(batch.channels);
  s.by_columns = make_divider(batch.out_width);
  s.table_per_channel = batch.table_per_channel;
  const std::int64_t table_channels = batch.table_per_channel ? batch.channels : 1;
  s.shared_values = table_channels <= kSharedTables ? static_cast<int>(table_channels * 256) : 0;
  const std::int64_t bands = batch.count * s.bands;
  const bool together = aligned16(out) && s.out_image % kVec<T> == 0 &&
                        (s.bands == 1 || std::int64_t{s.band_rows} * s.out_row % kVec<T> == 0);
  launch("prepare_images", prepare_images_kernel<T>, {std::min(bands, kMostBlocks)},
         {kImageThreads}, 0, stream, s, pixels, windows, tables, out, bands, together);
}

template void prepare_images(Stream, const ImageBatch&, const std::uint8_t*, const ImageWindow*,
                             const float*, float*);
template void prepare_images(Stream, const ImageBatch&, const std::uint8_t*, const ImageWindow*,
                             const float*, bf16*);
template void prepare_images(Stream, const ImageBatch&, const std::uint8_t*, const ImageWindow*,
                             const float*, f16*);

}  // namespace nf::NF_TARGET
