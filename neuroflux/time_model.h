// How long training takes: the times of single passes as functions of the batch, and what follows
// from them for a block, its cache included.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "neuroflux/local_block.h"
#include "nn/checkpoint_trainer.h"
#include "nn/model.h"

namespace nf {

/// Seconds of one pass of a batch, known at a few batch sizes.
class BatchTime {
 public:
  struct Point {
    std::int64_t batch = 1;
    double seconds = 0.0;
  };

  BatchTime() = default;
  /// Points at ascending batches; one at least. Throws Error otherwise.
  explicit BatchTime(std::vector<Point> points);

  /// Linear between the points, proportional to the batch beyond the last, and below the first on
  /// the line through the first two (never negative; with one point: proportional).
  double seconds(std::int64_t batch) const;
  /// Of a whole set in batches of `batch`, the last one shorter.
  double set_seconds(std::int64_t count, std::int64_t batch) const;

  const std::vector<Point>& points() const { return points_; }

 private:
  std::vector<Point> points_;
};

/// The passes of one unit with its classifier, or of a whole net.
struct PassTimes {
  BatchTime stage;     ///< copying the batch to the device, as values
  BatchTime train;     ///< one optimisation step, without staging
  BatchTime evaluate;  ///< unit and classifier in evaluation mode
  BatchTime forward;   ///< the unit alone in evaluation mode
};

/// Of the activation cache in its place.
struct StorageSpeed {
  double write = 0.0;  ///< bytes per second; infinite where caches stay in host memory
  double read = 0.0;
  /// Processor seconds per byte that writing and reading keep from the computation, which overlaps
  /// with the transfer itself: 0 where a core is left for them.
  double write_work = 0.0, read_work = 0.0;
};

/// Where times come from: measurements on the device, or FLOPs and bytes (time_profile.h).
class TimeModel {
 public:
  virtual ~TimeModel() = default;
  /// "measured" or "predicted".
  virtual const char* source() const = 0;
  /// Times of a unit whose input samples are (H, W, C), up to `max_batch`, which must fit.
  virtual PassTimes unit(const LocalUnit& unit, const Shape& sample, std::int64_t max_batch) = 0;
  /// The same of end-to-end backpropagation; with segments, of the kind that computes activations
  /// inside them again.
  virtual PassTimes whole(nn::Model& model, const nn::Segments& segments,
                          std::int64_t max_batch) = 0;
  virtual StorageSpeed storage() = 0;
  /// What answers from memory would have taken to measure, so far.
  virtual double replayed_seconds() const { return 0.0; }
  /// What it remembers, as JSON, so that another process plans by the same times; nothing where the
  /// answers are the same anyway. load() throws DataError for a file that is not such a one.
  virtual void save(const std::filesystem::path&) const {}
  virtual void load(const std::filesystem::path&) {}
};

/// What a block works on.
struct BlockWork {
  std::int64_t epochs = 1;
  std::int64_t train_count = 1, validation_count = 0;
  std::int64_t read_bytes = 0;   ///< of its input's training set in the cache; 0: not cached
  std::int64_t write_bytes = 0;  ///< of its outputs; 0: it is the last and writes none
  std::int64_t cache_views = 1;  ///< of the training set among these outputs
};

/// Seconds over all epochs.
struct BlockTime {
  double train = 0.0;       ///< steps, and waiting for the cache where it is slower than they are
  double evaluation = 0.0;  ///< of the validation set after every epoch
  double cache = 0.0;       ///< filling the next block's cache
  double total() const { return train + evaluation + cache; }
};

/// Time of a block made of `units` at one batch. Reading and writing overlap with computing, so
/// the slower of the two counts, computing together with the work that reading and writing make.
BlockTime block_time(const std::vector<const PassTimes*>& units, std::int64_t batch,
                     const BlockWork& work, const StorageSpeed& storage);

/// Whichever of 1..max_batch, among the batches at which times are known and `max_batch` itself,
/// takes least training time per sample. A smaller one is taken only where it is faster by more
/// than `margin` (a fraction), which keeps noise from deciding.
std::int64_t fastest_batch(const std::vector<const PassTimes*>& units, std::int64_t max_batch,
                           std::int64_t count, double margin = 0.1);

}  // namespace nf
