// Samples in host memory, in one of two forms: the values that a network reads, or stored pixels
// with all that a device needs to make those values of them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/backend.h"
#include "engine/shape.h"

namespace nf::nn {

enum class SampleForm : std::uint8_t { values, pixels };

/// What a batch of stored pixels looks like, whatever is in it: its sizes on a device follow.
struct PixelFormat {
  Shape stored;             ///< (H, W, C) of an image as it is stored, in u8
  std::int64_t tables = 1;  ///< of normalised values: one for all channels, or one for each

  bool operator==(const PixelFormat&) const = default;
};

struct Batch {
  std::int64_t size = 0;
  /// Of pixels; without it the batch holds values.
  std::optional<PixelFormat> format;
  std::vector<float> images;         // values: (size, H, W, C)
  std::vector<std::uint8_t> pixels;  // pixels: (size, H, W, C) as stored
  std::vector<ImageWindow> windows;  // pixels: (size), where each sample lies in its stored image
  std::vector<float> tables;         // pixels: (format->tables, 256), the value of each byte
  std::vector<std::int32_t> labels;  // (size)
};

/// A batch that someone else owns, as it is copied to a device. What the form does not have is
/// null; so is all of it on a meta context, where nothing is read.
struct HostBatch {
  std::int64_t size = 0;
  Shape sample;  ///< (H, W, C) of the values
  std::optional<PixelFormat> format = std::nullopt;
  const float* images = nullptr;
  const std::uint8_t* pixels = nullptr;
  const ImageWindow* windows = nullptr;
  const float* tables = nullptr;
  const std::int32_t* labels = nullptr;

  /// Samples first..first+n-1 of it.
  HostBatch part(std::int64_t first, std::int64_t n) const;
};

/// The batch as samples of that shape. Throws Error unless it holds, in one form, the samples and
/// labels of `size` of them, at least one: what reads it goes by `size` alone.
HostBatch host_batch(const Batch& batch, const Shape& sample);

}  // namespace nf::nn
