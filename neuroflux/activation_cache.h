// A block's outputs for a whole data set: written once to storage, read every epoch by the next
// block. Samples lie in chunks with a checksum each; cache_manifest.h says where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "neuroflux/cache_manifest.h"
#include "neuroflux/cache_reader.h"
#include "neuroflux/chunk_io.h"
#include "neuroflux/disk_chunks.h"
#include "neuroflux/host_memory.h"

namespace nf {

/// Throws Error naming the folder and the reason unless files can be made there and `bytes` are
/// free, with those of the files that lie in it. Leaves nothing behind, so that storage can be
/// tried before hours are spent on a run.
void check_cache_folder(const std::filesystem::path& folder, std::int64_t bytes);

struct CacheWriteOptions {
  CacheStorage storage = {};
  std::int64_t buffers = 4;               // chunks that may be on their way; fewer where limits ask
  std::int64_t host_limit_bytes = 0;      // of this writer's buffers; 0: none
  std::shared_ptr<HostMemory> host = {};  // an account that others share
};

/// Writes a cache while the caller computes. The cache exists once close() has returned; until
/// then, and when anything throws, the destructor removes what was written.
class CacheWriter {
 public:
  /// Removes a cache of that name, makes the folder and reserves the space. Throws Error naming the
  /// folder, what is needed and what is free, or the file and the system's reason, and no file
  /// remains; or naming the least limit on host memory that does.
  CacheWriter(std::filesystem::path folder, CacheSpec spec, CacheWriteOptions options = {});
  /// Into any other place. Labels and checksums are charged to `host`.
  CacheWriter(std::unique_ptr<ChunkSink> sink, CacheSpec spec,
              std::shared_ptr<HostMemory> host = {});
  CacheWriter(const CacheWriter&) = delete;
  CacheWriter& operator=(const CacheWriter&) = delete;

  /// The next `n` samples, (n, H, W, C), and their labels, (n), in the data set's order. Throws
  /// Error for more samples than the spec's count and for a failed write, of this call's samples or
  /// earlier ones, which ends the writer.
  void append(const float* samples, const std::int32_t* labels, std::int64_t n);
  /// Syncs the data, then puts the manifest in place. Throws Error when samples are missing or
  /// storage fails. Does nothing when called again.
  void close();

  /// How long append() and close() have waited for storage.
  double wait_seconds() const { return sink_->wait_seconds(); }
  std::int64_t host_bytes() const { return charge_.bytes(); }

  /// The least limit under which a cache can be written, itself not counted.
  static std::int64_t least_host_bytes(const CacheSpec& spec, CachePlace place);

 private:
  enum class State : std::uint8_t { open, broken, closed };

  void put_chunk();

  CacheLayout layout_;
  CacheManifest manifest_;
  State state_ = State::open;
  HostCharge charge_;
  std::unique_ptr<ChunkSink> sink_;
  std::span<std::byte> chunk_;  // being filled; empty: none is
  std::int64_t filled_ = 0;     // samples in it
  std::vector<std::int32_t> labels_;
};

}  // namespace nf
