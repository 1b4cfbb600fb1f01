// In which order an epoch reads the samples of a cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "neuroflux/cache_manifest.h"

namespace nf {

/// Chunks whose samples are mixed with each other, unless something else is asked for.
inline constexpr std::int64_t kWindowChunks = 8;

/// What CacheOrder does, as a run's record names it.
inline constexpr const char* kCacheOrder = "chunks, then samples within windows of chunks";

struct CacheOrderOptions {
  bool shuffle = true;  // false: as samples were appended
  std::uint64_t seed = 0;
  std::int64_t window_chunks = kWindowChunks;
};

/// Chunks are permuted by stream 0 of random_key(seed, shuffle, epoch); each `window_chunks` of
/// them form a window, and the samples of window w, put one after the other in that order, are
/// permuted by stream 1 + w. So the order depends on chunk and window size, not on batches.
class CacheOrder {
 public:
  struct Item {
    std::int64_t position;  // of the chunk in chunks()
    std::int64_t index;     // of the sample in the chunk
  };

  CacheOrder() = default;
  CacheOrder(const CacheLayout& layout, const CacheOrderOptions& options, std::int64_t epoch);

  const std::vector<std::int64_t>& chunks() const { return chunks_; }
  /// The next sample; at most as many calls as there are samples.
  Item next();

  /// Most that an epoch's order takes of host memory, besides a few bytes a chunk of a window.
  static std::int64_t host_bytes(const CacheLayout& layout, std::int64_t window_chunks);

 private:
  void open_window();

  CacheLayout layout_;
  CacheOrderOptions options_;
  std::uint64_t key_ = 0;
  std::vector<std::int64_t> chunks_;
  std::int64_t windows_ = 0;           // opened
  std::int64_t first_position_ = 0;    // of the window
  std::vector<std::int64_t> starts_;   // of each chunk's samples in the window, and their end
  std::vector<std::int64_t> samples_;  // of the window, in the order of their use
  std::size_t cursor_ = 0;
};

}  // namespace nf
