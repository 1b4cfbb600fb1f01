// Chunks of a cache in files: several requests in flight, aligned buffers, a manifest put in place
// last.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "neuroflux/chunk_io.h"
#include "neuroflux/disk_file.h"
#include "neuroflux/staging.h"
#include "neuroflux/storage_queue.h"

namespace nf {

/// How a cache's files are read and written.
struct CacheStorage {
  StorageQueueOptions queue = {};
  bool direct = true;  // past the system's page cache where the file system has that
};

class DiskChunkSource : public ChunkSource {
 public:
  /// Throws DataError naming the file, the rule and the values for a missing or damaged manifest,
  /// and data or labels that are missing or not what the manifest says.
  DiskChunkSource(std::filesystem::path folder, const std::string& name,
                  const CacheStorage& storage);
  ~DiskChunkSource() override { end(); }

  const CacheSpec& spec() const override { return manifest_.spec; }
  const std::vector<std::int32_t>& labels() const override { return labels_; }
  std::string where() const override { return "manifest " + files_.manifest.string(); }
  std::int64_t buffer_bytes() const override { return layout_.chunk_stride; }
  std::int64_t fixed_host_bytes() const override { return fixed_host_bytes(layout_); }
  static std::int64_t fixed_host_bytes(const CacheLayout& layout);

  void begin(const std::vector<std::int64_t>& order, std::int64_t buffers) override;
  Chunk& get(std::int64_t position) override;
  void release(std::int64_t position) override;
  void advance() override;
  void end() noexcept override;
  std::string repair(std::int64_t chunk, std::span<const std::byte> bytes) override;

 private:
  struct Slot {
    Chunk chunk;
    std::int64_t position = 0;
    bool loaded = false;
  };
  Slot& slot_at(std::int64_t position) {
    return slots_[static_cast<std::size_t>(slot_of_[static_cast<std::size_t>(position)])];
  }
  void request_more();
  void take(const StorageQueue::Done& done);
  std::string rewrite(std::int64_t chunk, std::span<const std::byte> bytes);

  std::filesystem::path folder_;
  CacheFiles files_;
  CacheManifest manifest_;
  CacheLayout layout_;
  DiskFile data_;
  std::vector<std::int32_t> labels_;
  StagingBuffers buffers_;
  std::unique_ptr<StorageQueue> queue_;  // gone before the buffers it reads into

  // The epoch.
  std::vector<std::int64_t> order_;
  std::vector<Slot> slots_;  // one for each buffer
  std::vector<std::int64_t> free_;
  std::vector<std::int64_t> slot_of_;  // by position
  std::int64_t requested_ = 0;         // positions 0..requested_-1
};

class DiskChunkSink : public ChunkSink {
 public:
  /// Removes a cache of that name, makes the folder and reserves the space. Throws Error naming the
  /// folder, what is needed and what is free, or the file and the system's reason; no file remains.
  DiskChunkSink(std::filesystem::path folder, const CacheSpec& spec, const CacheStorage& storage,
                std::int64_t buffers);
  ~DiskChunkSink() override;

  std::span<std::byte> room() override;
  void put(std::int64_t chunk) override;
  void finish(const CacheManifest& manifest, const std::vector<std::int32_t>& labels) override;
  double wait_seconds() const override { return wait_seconds_; }

 private:
  void await_one();
  void taken(const StorageQueue::Done& done);
  [[noreturn]] void fail_write(StorageQueue::Done first);
  void discard() noexcept;

  std::filesystem::path folder_;
  CacheLayout layout_;
  CacheFiles files_;
  bool made_folder_ = false;
  bool finished_ = false;
  DiskFile data_;
  DiskFile labels_file_;
  StagingBuffers buffers_;
  std::unique_ptr<StorageQueue> queue_;
  std::vector<std::int64_t> free_;
  std::vector<std::pair<std::int64_t, std::int64_t>> writing_;  // chunk and its buffer
  double wait_seconds_ = 0;
};

}  // namespace nf
