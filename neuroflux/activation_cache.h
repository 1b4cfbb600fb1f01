// A block's outputs for a whole data set: written once to storage, read every epoch by the next
// block. Samples lie in chunks with a checksum each; cache_manifest.h says where.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "neuroflux/cache_manifest.h"
#include "neuroflux/disk_file.h"
#include "nn/data/batch_source.h"

namespace nf {

/// Throws Error naming the folder and the reason unless files can be made there and `bytes` are
/// free. Leaves nothing behind, so that storage can be tried before hours are spent on a run.
void check_cache_folder(const std::filesystem::path& folder, std::int64_t bytes);

/// Writes a cache. It exists once close() has returned; until then, and when anything throws, the
/// destructor removes what was written.
class CacheWriter {
 public:
  /// Removes a cache of that name, makes the folder and reserves the space. Throws Error naming the
  /// folder, what is needed and what is free, or the file and the system's reason; no file remains.
  CacheWriter(std::filesystem::path folder, CacheSpec spec);
  CacheWriter(const CacheWriter&) = delete;
  CacheWriter& operator=(const CacheWriter&) = delete;
  ~CacheWriter();

  /// The next `n` samples, (n, H, W, C), and their labels, (n), in the data set's order. Throws
  /// Error for more samples than the spec's count and for a failed write, which ends the writer.
  void append(const float* samples, const std::int32_t* labels, std::int64_t n);
  /// Syncs the data, then puts the manifest in place. Throws Error when samples are missing or
  /// storage fails. Does nothing when called again.
  void close();

 private:
  enum class State : std::uint8_t { open, broken, closed };

  void write_chunk();
  void discard() noexcept;

  std::filesystem::path folder_;
  CacheLayout layout_;
  CacheFiles files_;
  CacheManifest manifest_;
  bool made_folder_ = false;
  State state_ = State::open;
  DiskFile data_;
  DiskFile labels_file_;
  std::vector<std::byte> chunk_;  // the chunk being filled, with its padding
  std::int64_t filled_ = 0;       // samples in it
  std::vector<std::int32_t> labels_;
};

struct CacheReadOptions {
  bool shuffle = true;  // false: the order in which samples were appended
  std::uint64_t seed = 0;
  std::int64_t window_chunks = 8;      // chunks whose samples are mixed with each other
  std::int64_t read_ahead_chunks = 8;  // further chunks that may be read before they are needed
  std::optional<std::uint64_t> provenance = {};  // set: the cache must have been made from the same
  /// Writes samples [first_sample, first_sample + n) of the data set, (n, H, W, C), to `out`.
  /// Called inside next() for a chunk that can't be read.
  std::function<void(std::int64_t first_sample, std::int64_t n, float* out)> recompute = {};
  /// Told, inside next(), of each damaged chunk and what was done about it.
  std::function<void(const std::string&)> warn = {};
};

/// Reads a cache in batches. A thread reads chunks ahead, checks them and converts them to float.
/// The order of an epoch: chunks are permuted by stream 0 of random_key(seed, shuffle, epoch); each
/// `window_chunks` of them form a window, and the samples of window w, put one after the other in
/// that order, are permuted by stream 1 + w. So it depends on chunk and window size, not on
/// batches.
class CacheReader : public nn::BatchSource {
 public:
  /// Throws DataError naming the file, the rule and the values for a missing or damaged manifest,
  /// another provenance, and data or labels that are missing or not what the manifest says.
  CacheReader(std::filesystem::path folder, const std::string& name, CacheReadOptions options);
  CacheReader(const CacheReader&) = delete;
  CacheReader& operator=(const CacheReader&) = delete;
  ~CacheReader() override;

  Shape sample_shape() const override { return manifest_.spec.sample_shape; }
  std::int64_t count() const override { return manifest_.spec.count; }
  /// Begins to read at once; an epoch under way is dropped.
  void start(std::int64_t batch, std::int64_t epoch) override;
  /// A chunk that can't be read or has a wrong checksum is recomputed and rewritten in the file;
  /// without `recompute` it is a DataError naming file, chunk and byte offset. After a throw the
  /// epoch is over: start another.
  const nn::Batch* next() override;

  const CacheSpec& spec() const { return manifest_.spec; }
  /// How long next() has waited for storage, since construction.
  double wait_seconds() const { return wait_seconds_; }
  /// From storage, since construction.
  std::int64_t bytes_read() const { return bytes_read_.load(); }
  /// Of all buffers, the batch handed out included.
  std::int64_t host_bytes() const;

 private:
  struct Slot {
    std::vector<float> values;  // the samples of one chunk
    std::int64_t chunk = 0;
    std::int64_t unused = 0;  // samples not yet put into a batch
    std::string damage;       // why the values are not the chunk's; empty: they are
  };
  struct Item {
    std::int64_t position;  // of the chunk in the epoch's order
    std::int64_t index;     // of the sample in the chunk
  };

  // The reading thread.
  void read_ahead();
  bool acquire(std::size_t& slot);
  void load(Slot& slot, std::int64_t chunk);

  // The consumer.
  void stop();
  void open_window();
  Slot& slot_at(std::int64_t position);
  void wait_for(std::int64_t position);
  void release(std::size_t slot);
  void repair(Slot& slot);
  void warn(const std::string& message) const;

  std::filesystem::path folder_;
  CacheReadOptions options_;
  CacheManifest manifest_;
  CacheLayout layout_;
  CacheFiles files_;
  DiskFile data_;
  std::vector<std::int32_t> labels_;
  std::vector<Slot> slots_;
  std::vector<std::byte> stored_;  // the reading thread's: a chunk as it lies in the file

  // The epoch, as the consumer sees it.
  bool active_ = false;
  std::int64_t batch_size_ = 0;
  std::uint64_t key_ = 0;
  std::int64_t delivered_ = 0;
  std::vector<std::int64_t> order_;  // of chunks
  std::vector<Item> window_;
  std::size_t cursor_ = 0;
  std::int64_t windows_ = 0;
  std::int64_t ready_ = 0;  // positions known to be loaded
  nn::Batch batch_;
  double wait_seconds_ = 0;

  // Shared with the reading thread, under mutex_.
  std::mutex mutex_;
  std::condition_variable changed_;
  bool cancel_ = false;
  std::int64_t loaded_ = 0;           // positions 0..loaded_-1 have their slot
  std::vector<std::size_t> slot_of_;  // by position
  std::vector<std::size_t> free_;
  std::exception_ptr failure_;
  std::atomic<std::int64_t> bytes_read_ = 0;
  std::thread thread_;
};

}  // namespace nf
