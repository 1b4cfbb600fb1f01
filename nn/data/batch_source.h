// What a trainer reads: batches of images or cached activations, epoch by epoch, in host memory.
#pragma once

#include <cstdint>

#include "nn/data/batch.h"

namespace nf::nn {

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
