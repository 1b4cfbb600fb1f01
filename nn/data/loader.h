// Batches of images prepared ahead by background threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "nn/data/batch_source.h"
#include "nn/data/image_set.h"
#include "nn/data/transform.h"

namespace nf::nn {

struct LoaderOptions {
  bool shuffle = false;
  /// Draw the transform's crop and flip anew for each sample and epoch.
  bool augment = false;
  /// Pixels: stored images as they are, with the transform's windows and tables beside them.
  SampleForm form = SampleForm::values;
  std::uint64_t seed = 0;
  int threads = 1;
  /// Batches prepared ahead of the one that the consumer holds.
  std::int64_t prefetch_batches = 4;
};

/// Reads the named images of a set. Batches are the same bits whatever the number of threads: the
/// order hangs on (seed, epoch), the augmentation of a sample on (seed, epoch, its index in the
/// set). Buffers, `prefetch_batches + 1` of them, are reused. One consumer, as every BatchSource.
class Loader : public BatchSource {
 public:
  /// Throws Error for a damaged set, an index out of range, or a transform that does not fit.
  Loader(std::shared_ptr<const ImageSet> set, std::vector<std::int64_t> indices,
         Transform transform, const LoaderOptions& options = {});

  Shape sample_shape() const override { return sample_shape_; }
  std::int64_t count() const override { return static_cast<std::int64_t>(indices_.size()); }
  /// Also ends an epoch that has not been read to its end.
  void start(std::int64_t batch, std::int64_t epoch) override;
  /// Throws what preparing this batch threw, again at each call until the next start.
  const Batch* next() override;

  /// What its batches look like; none where they hold values.
  const std::optional<PixelFormat>& format() const { return format_; }

  /// Samples first..first+n-1 of the unshuffled order as the loader prepares them in that epoch,
  /// augmented where it augments. Independent of start and next; may be called from any thread.
  /// Throws Error for a sample out of range.
  Batch read(std::int64_t first, std::int64_t n, std::int64_t epoch) const;

  /// Seconds that `next` has waited for the background threads, since construction.
  double wait_seconds() const { return wait_seconds_; }

 private:
  struct Slot {
    Batch batch;
    std::int64_t number = -1;      // of the batch it holds in this epoch
    std::int64_t left = 0;         // samples not prepared yet
    std::exception_ptr exception;  // the first that preparing the batch threw
  };
  /// Some samples of one batch: what a thread prepares at a time.
  struct Task {
    Slot* slot;
    std::int64_t first;  // within the batch
    std::int64_t size;
    std::int64_t position;  // of the first within the epoch
  };

  void work(const std::stop_token& stop);
  bool claimable() const;
  Task claim();
  void prepare(const Task& task) const;
  void resize(Batch& batch, std::int64_t size) const;
  /// What augments samples in that epoch, with the sample's index.
  std::uint64_t augment_key(std::int64_t epoch) const;
  void write_sample(Batch& batch, std::int64_t at, std::int64_t index,
                    std::uint64_t augment_key) const;
  Slot& slot_of(std::int64_t number) {
    return slots_[static_cast<std::size_t>(number) % slots_.size()];
  }
  std::int64_t size_of(std::int64_t number) const;

  // Fixed after construction.
  std::shared_ptr<const ImageSet> set_;
  std::vector<std::int64_t> indices_;
  Transform transform_;
  LoaderOptions options_;
  Shape sample_shape_;
  std::optional<PixelFormat> format_;
  std::vector<float> tables_;  // of the transform, for batches of pixels

  // The consumer's own.
  bool started_ = false;
  std::int64_t served_ = 0;  // batches handed out in this epoch
  double wait_seconds_ = 0;

  // Written by start while no thread is preparing, read by all.
  std::vector<std::int64_t> order_;  // index in the set of each sample of the epoch
  std::uint64_t augment_key_ = 0;
  std::int64_t batch_ = 1;
  std::vector<Slot> slots_;

  // Guarded by mutex_, as are the slots' number, left and exception.
  std::mutex mutex_;
  std::condition_variable_any work_ready_;
  std::condition_variable work_done_;
  std::int64_t batches_ = 0;           // of the epoch; 0 also stops the threads from claiming
  std::int64_t claimed_ = 0;           // samples of the epoch given to a thread
  std::int64_t released_ = 0;          // batches that the consumer has done with
  std::int64_t active_ = 0;            // tasks being prepared
  std::vector<std::jthread> threads_;  // last, so that they end before what they use
};

}  // namespace nf::nn
