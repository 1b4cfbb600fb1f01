// A block prepares a band of rows of one image: it copies the stored rows that the band shows into
// shared memory, 16 bytes at a time, and looks their bytes up from there.
#pragma once

#include "kernels/divider.h"
#include "kernels/images.h"

namespace nf::NF_TARGET::image_batch {

inline constexpr int kImageThreads = 256;
/// Tables of so many channels fit shared memory.
inline constexpr int kSharedTables = 16;
/// Bytes of stored rows that do, and what they may lie behind a boundary of 16 bytes.
inline constexpr int kStagedBytes = 8192, kLine = 16;

struct Sizes {
  std::int32_t height, width, channels, out_height, out_width;
  std::int32_t row, out_row;      // elements of a row
  std::int32_t image, out_image;  // of an image
  std::int32_t band_rows, bands;  // rows of the output in a band; bands of an image
  Divider by_channels, by_columns;
  bool staged;  // the stored rows of a band fit shared memory
  bool table_per_channel;
  int shared_values;  // of tables, kept in shared memory; 0: none
};

/// Stored bytes begin..end-1 of an image.
struct StoredRange {
  std::int32_t begin, end;
};

/// Those of the rows that rows first..first+rows-1 of the output show.
NF_DEVICE StoredRange shown_range(const Sizes& s, const ImageWindow& window, std::int32_t first,
                                  std::int32_t rows) {
  const auto clamped = [&](std::int64_t row) {
    return static_cast<std::int32_t>(row < 0 ? 0 : row > s.height ? s.height : row);
  };
  const std::int64_t top = std::int64_t{first} + window.top;
  return {clamped(top) * s.row, clamped(top + rows) * s.row};
}

/// Copies a range to shared memory, as far behind a boundary of 16 bytes as it lies in `image`.
/// Returns how far that is.
NF_DEVICE std::int32_t stage(const std::uint8_t* image, const StoredRange& range,
                             std::uint8_t* staged) {
  const std::uint8_t* from = image + range.begin;
  const auto lead = static_cast<std::int32_t>(reinterpret_cast<std::uintptr_t>(from) % kLine);
  const std::int32_t end = lead + range.end - range.begin;
  for (std::int32_t at = static_cast<std::int32_t>(threadIdx.x) * kLine; at < end;
       at += kImageThreads * kLine) {
    if (at >= lead && at + kLine <= end) {
      store_vec(staged + at, load_vec<kLine>(from + (at - lead)));
    } else {
      const std::int32_t last = at + kLine < end ? at + kLine : end;
      for (std::int32_t i = at < lead ? lead : at; i < last; ++i) staged[i] = from[i - lead];
    }
  }
  return lead;
}

/// Element `at` of a band whose first row is `first_row`; stored[0] is the image's byte `begin`.
NF_DEVICE float image_value(const Sizes& s, const std::uint8_t* stored, std::int32_t begin,
                            const ImageWindow& window, std::int32_t first_row, const float* tables,
                            std::int32_t at) {
  std::int32_t rest = at;
  const std::int32_t channel = take_remainder(rest, s.by_channels);
  std::int32_t column = take_remainder(rest, s.by_columns);
  if (window.flip != 0) column = s.out_width - 1 - column;
  const std::int64_t y = std::int64_t{first_row} + rest + window.top;
  const std::int64_t x = std::int64_t{column} + window.left;
  std::int32_t byte = 0;
  if (y >= 0 && y < s.height && x >= 0 && x < s.width)
    byte = stored[y * s.row + x * s.channels + channel - begin];
  return tables[(s.table_per_channel ? channel * 256 : 0) + byte];
}

/// The grid's x runs over the bands of all images.
template <typename T>
NF_KERNEL(kImageThreads)
prepare_images_kernel(Sizes s, const std::uint8_t* pixels, const ImageWindow* windows,
                      const float* tables, T* out, std::int64_t bands, bool together) {
  constexpr int V = kVec<T>;
  NF_SHARED(float, shared, [kSharedTables * 256]);
  using Line = Vec<std::uint8_t, kLine>;
  NF_SHARED(Line, lines, [kStagedBytes / kLine + 1]);
  auto* const staged = reinterpret_cast<std::uint8_t*>(&lines[0]);
  if (s.shared_values > 0) {
    for (int i = static_cast<int>(threadIdx.x); i < s.shared_values; i += kImageThreads)
      shared[i] = tables[i];
    __syncthreads();
    tables = shared;
  }
  for (std::int64_t band = blockIdx.x; band < bands; band += gridDim.x) {
    const std::int64_t n = band / s.bands;
    const auto first_row = static_cast<std::int32_t>(band - n * s.bands) * s.band_rows;
    const std::int32_t left = s.out_height - first_row;
    const std::int32_t rows = left < s.band_rows ? left : s.band_rows;
    const ImageWindow window = windows[n];
    const std::uint8_t* stored = pixels + n * s.image;
    std::int32_t begin = 0;
    if (s.staged) {
      const StoredRange range = shown_range(s, window, first_row, rows);
      __syncthreads();  // the band before has been read
      stored = staged + stage(stored, range, staged);
      begin = range.begin;
      __syncthreads();
    }
    T* target = out + n * s.out_image + std::int64_t{first_row} * s.out_row;
    const std::int32_t size = rows * s.out_row;
    const std::int32_t vectors = together ? size / V : 0;
    const std::int32_t work = vectors + size - vectors * V;
    // Unsigned: a step beyond a band of almost 2^31 elements.
    for (std::uint32_t next = threadIdx.x; next < static_cast<std::uint32_t>(work);
         next += kImageThreads) {
      const auto i = static_cast<std::int32_t>(next);
      if (i < vectors) {
        Vec<T, V> values;
        for (int v = 0; v < V; ++v)
          values.v[v] =
              from_float<T>(image_value(s, stored, begin, window, first_row, tables, i * V + v));
        store_vec(target + i * V, values);
      } else {
        const std::int32_t at = vectors * V + (i - vectors);
        target[at] = from_float<T>(image_value(s, stored, begin, window, first_row, tables, at));
      }
    }
  }
}

}  // namespace nf::NF_TARGET::image_batch
