// Reads an activation cache in batches that are made ahead of their use.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "neuroflux/cache_order.h"
#include "neuroflux/disk_chunks.h"
#include "neuroflux/host_memory.h"
#include "nn/data/batch_source.h"

namespace nf {

struct CacheReadOptions {
  bool shuffle = true;  // false: the order in which samples were appended
  std::uint64_t seed = 0;
  std::int64_t window_chunks = kWindowChunks;  // whose samples are mixed with each other
  std::int64_t read_ahead_chunks = 8;  // further chunks that may be read before they are needed
  std::optional<std::uint64_t> provenance = {};  // set: the cache must have been made from the same
  CacheStorage storage = {};
  std::int64_t host_limit_bytes = 0;      // of this reader's buffers; 0: none
  std::shared_ptr<HostMemory> host = {};  // an account that others share
  /// Writes samples [first_sample, first_sample + n) of the data set, (n, H, W, C), to `out`.
  /// Called inside next() for a chunk that can't be read.
  std::function<void(std::int64_t first_sample, std::int64_t n, float* out)> recompute = {};
  /// Told, inside next(), of each damaged chunk and what was done about it.
  std::function<void(const std::string&)> warn = {};
};

/// A thread reads chunks ahead, checks them and makes float batches of them: one while the consumer
/// holds another. CacheOrder tells in which order. During an epoch there are buffers for the chunks
/// of a window, as many chunks more as are read ahead and the limits allow, and two batches.
class CacheReader : public nn::BatchSource {
 public:
  /// Throws DataError naming the file, the rule and the values for a missing or damaged manifest,
  /// another provenance, and data or labels that are missing or not what the manifest says.
  CacheReader(std::filesystem::path folder, const std::string& name, CacheReadOptions options);
  CacheReader(std::unique_ptr<ChunkSource> source, CacheReadOptions options);
  CacheReader(const CacheReader&) = delete;
  CacheReader& operator=(const CacheReader&) = delete;
  ~CacheReader() override;

  Shape sample_shape() const override { return spec().sample_shape; }
  std::int64_t count() const override { return spec().count; }
  /// Begins to read at once; an epoch under way is dropped. Throws Error naming the least limit on
  /// host memory that does where the one given is too small.
  void start(std::int64_t batch, std::int64_t epoch) override;
  /// A chunk that can't be read or has a wrong checksum is recomputed and rewritten in the file;
  /// without `recompute` it is a DataError naming file, chunk and byte offset. After a throw the
  /// epoch is over: start another.
  const nn::Batch* next() override;

  /// Drops the epoch under way, if there is one, and its buffers.
  void stop() noexcept;

  const CacheSpec& spec() const { return source_->spec(); }
  /// How long next() has waited for batches, recomputing not counted, since construction.
  double wait_seconds() const { return wait_seconds_; }
  /// Of chunks whose samples were all used, since construction.
  std::int64_t bytes_read() const { return bytes_read_; }
  /// Of all buffers, the batch handed out included; outside of an epoch only of what is kept.
  std::int64_t host_bytes() const { return kept_.bytes() + epoch_.bytes(); }

  /// What a reader holds as long as it lives.
  static std::int64_t kept_host_bytes(const CacheSpec& spec, CachePlace place);
  /// The least that an epoch in such batches takes besides.
  static std::int64_t epoch_host_bytes(const CacheSpec& spec, const CacheReadOptions& options,
                                       std::int64_t batch, CachePlace place);

 private:
  // The reading thread.
  void read();
  bool make_batch(nn::Batch& batch, std::int64_t n);  // false: the epoch is dropped
  bool repaired(ChunkSource::Chunk& held, std::int64_t chunk);

  // The consumer.
  void repair(ChunkSource::Chunk& held, std::int64_t chunk);

  CacheReadOptions options_;
  std::unique_ptr<ChunkSource> source_;
  CacheLayout layout_;
  HostCharge kept_, epoch_;

  // The epoch; the reading thread's while there is one.
  bool active_ = false;
  std::int64_t batch_size_ = 0;
  CacheOrder order_;
  std::vector<std::int64_t> unused_;  // samples of the chunk at a position not yet in a batch
  std::vector<nn::Batch> batches_;
  std::int64_t delivered_ = 0;  // samples; the consumer's
  double wait_seconds_ = 0;
  std::atomic<std::int64_t> bytes_read_ = 0;

  // Shared with the reading thread, under mutex_.
  std::mutex mutex_;
  std::condition_variable changed_;
  bool cancel_ = false;
  std::int64_t made_ = 0;    // batches
  std::int64_t handed_ = 0;  // to the consumer
  std::int64_t back_ = 0;    // from the consumer
  std::int64_t damaged_chunk_ = 0;
  ChunkSource::Chunk* damaged_ = nullptr;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace nf
