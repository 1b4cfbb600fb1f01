// How readers and writers of caches get at chunks, wherever these lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "neuroflux/cache_manifest.h"

namespace nf {

/// Where a run keeps its caches.
enum class CachePlace : std::uint8_t { disk, memory };
constexpr const char* to_string(CachePlace place) {
  return place == CachePlace::disk ? "disk" : "memory";
}

/// A finished cache. An epoch, from begin() to end(), belongs to one thread.
class ChunkSource {
 public:
  struct Chunk {
    std::span<std::byte> bytes;  // its samples, as stored
    std::string damage;  // why these are not the chunk's: file, byte, reason; empty: they are
  };

  virtual ~ChunkSource() = default;
  virtual const CacheSpec& spec() const = 0;
  virtual const std::vector<std::int32_t>& labels() const = 0;
  /// Names the cache in errors: its manifest's path, or its place in memory.
  virtual std::string where() const = 0;

  /// Of one chunk that is held, 0 where chunks need no buffer of the reader's.
  virtual std::int64_t buffer_bytes() const = 0;
  /// Of what is held besides, as long as the source lives.
  virtual std::int64_t fixed_host_bytes() const = 0;

  /// Chunks will be asked for at positions of `order`, which stays until end(); at most `buffers`
  /// of them are held at once.
  virtual void begin(const std::vector<std::int64_t>& order, std::int64_t buffers) = 0;
  /// Waits for the chunk at a position. Positions are released before a further `buffers` of them
  /// are asked for; until then the bytes stay, and what is returned until the next call.
  virtual Chunk& get(std::int64_t position) = 0;
  virtual void release(std::int64_t position) = 0;
  /// Lets reading go on without waiting for anything.
  virtual void advance() {}
  virtual void end() noexcept = 0;

  /// Puts recomputed samples in the place of a damaged chunk's; says what came of it, in words.
  virtual std::string repair(std::int64_t chunk, std::span<const std::byte> bytes) = 0;
};

/// A cache being made. It exists once finish() has returned; without that nothing remains of it.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;
  /// Room for the next chunk with its padding. Waits until there is some; throws what an earlier
  /// write failed with.
  virtual std::span<std::byte> room() = 0;
  /// Takes the chunk that room() was given for.
  virtual void put(std::int64_t chunk) = 0;
  virtual void finish(const CacheManifest& manifest, const std::vector<std::int32_t>& labels) = 0;
  /// How long room() and finish() have waited for storage.
  virtual double wait_seconds() const = 0;
};

}  // namespace nf
