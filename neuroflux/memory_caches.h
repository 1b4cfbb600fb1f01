// Activation caches in host memory: what DiskChunkSource and DiskChunkSink are for files.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "neuroflux/chunk_io.h"
#include "neuroflux/host_memory.h"

namespace nf {

/// A run's caches by name. Readers keep theirs when it is removed or replaced.
class MemoryCaches {
 public:
  /// What they take is charged to `host`, which may be none.
  explicit MemoryCaches(std::shared_ptr<HostMemory> host = {}) : host_(std::move(host)) {}

  /// Begins a cache; one of that name is replaced when the new one is finished. Throws Error naming
  /// the bytes needed and those available, or the least limit that does. Outlived by the sink.
  std::unique_ptr<ChunkSink> write(const CacheSpec& spec);
  /// Throws DataError when there is no finished cache of that name.
  std::unique_ptr<ChunkSource> read(const std::string& name) const;
  void remove(const std::string& name) { caches_.erase(name); }

  /// What a cache takes while it lasts, labels included.
  static std::int64_t host_bytes(const CacheSpec& spec);

  struct Cache;

 private:
  std::shared_ptr<HostMemory> host_;
  std::map<std::string, std::shared_ptr<const Cache>> caches_;
};

}  // namespace nf
