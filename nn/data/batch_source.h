// What a trainer reads: batches of images or cached activations, epoch by epoch, in host memory.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/shape.h"

namespace nf::nn {

struct Batch {
  std::int64_t size = 0;
  std::vector<float> images;         // (size, H, W, C)
  std::vector<std::int32_t> labels;  // (size)
};

/// Throws Error unless the batch holds the values and labels of `size` samples of that shape, at
/// least one: what reads it goes by `size` alone.
inline void check_batch(const Batch& batch, const Shape& sample) {
  NF_CHECK(batch.size >= 1 && std::cmp_equal(batch.labels.size(), batch.size) &&
               std::cmp_equal(batch.images.size(), batch.size * sample.numel()),
           "batch: {} samples of {} must come with {} values and {} labels, got {} and {}",
           batch.size, sample.str(), batch.size * sample.numel(), batch.size, batch.images.size(),
           batch.labels.size());
}

/// A set of samples that can be read again and again. Not thread safe: one consumer.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// (H, W, C) of one sample.
  virtual Shape sample_shape() const = 0;
  /// Samples in an epoch.
  virtual std::int64_t count() const = 0;
  /// Begins an epoch in batches of `batch` samples; the last one may be shorter. What an epoch
  /// contains, and in which order, depends on the source's seed and on `epoch` alone.
  virtual void start(std::int64_t batch, std::int64_t epoch) = 0;
  /// The next batch, valid until the next call of start or next; null at the end of the epoch.
  virtual const Batch* next() = 0;
};

}  // namespace nf::nn
