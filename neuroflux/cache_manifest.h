// What an activation cache holds, where each chunk lies in its files, and the manifest on storage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "engine/dtype.h"
#include "engine/shape.h"

namespace nf {

struct CacheSpec {
  std::string name = {};      // the stem of the file names: letters, digits, '.', '_', '-'
  std::int64_t count = 0;     // samples
  Shape sample_shape;         // (H, W, C)
  DType dtype = DType::bf16;  // f32, bf16 or f16
  // The least bytes of a chunk, without padding: it has as many whole samples as take these.
  std::int64_t chunk_bytes = std::int64_t{1} << 20;
  std::uint64_t provenance = 0;  // hash of the configuration, weights and data it was made from

  bool operator==(const CacheSpec& other) const = default;
};

/// Chunk `c` holds samples [first_sample(c), first_sample(c) + samples(c)) one after the other,
/// from byte offset(c) of the data file on, then zeros up to a multiple of 4 KiB.
struct CacheLayout {
  std::int64_t count = 0;
  std::int64_t sample_values = 0;
  std::int64_t sample_bytes = 0;
  std::int64_t samples_per_chunk = 0;  // at least one, however large a sample is
  std::int64_t chunks = 0;
  std::int64_t chunk_stride = 0;  // bytes from one chunk to the next
  std::int64_t data_bytes = 0;    // of the data file
  std::int64_t label_bytes = 0;   // of the labels file

  std::int64_t first_sample(std::int64_t chunk) const { return chunk * samples_per_chunk; }
  std::int64_t samples(std::int64_t chunk) const;
  std::int64_t offset(std::int64_t chunk) const { return chunk * chunk_stride; }
  /// Bytes of the chunk's samples; its checksum covers these and not the padding.
  std::int64_t payload(std::int64_t chunk) const { return samples(chunk) * sample_bytes; }
  /// With the padding.
  std::int64_t stored(std::int64_t chunk) const {
    return chunk + 1 < chunks ? chunk_stride : data_bytes - offset(chunk);
  }
};

/// Throws Error for a spec that can't be stored: a name with more than
/// letters, digits, '.', '_' and '-', no samples, a shape that is
/// not (H, W, C), a dtype that is not f32, bf16 or f16, more bytes than 63 bits count.
CacheLayout cache_layout(const CacheSpec& spec);

/// Bytes that the cache takes on storage in blocks of 4 KiB: data and labels exactly, and the most
/// that the manifest can take.
std::int64_t cache_bytes(const CacheSpec& spec);

struct CacheFiles {
  std::filesystem::path data;      // name.data
  std::filesystem::path labels;    // name.labels, int32
  std::filesystem::path manifest;  // name.json; the cache exists when this one does
};
CacheFiles cache_files(const std::filesystem::path& folder, const std::string& name);

/// Removes the cache, finished or not, manifest first; files that don't exist are no error.
/// Throws Error naming a file that can't be removed.
void remove_cache(const std::filesystem::path& folder, const std::string& name);

struct CacheManifest {
  CacheSpec spec;
  std::vector<std::uint64_t> chunk_checksums;
  std::uint64_t labels_checksum = 0;
};

/// JSON with a checksum over its own fields, put in place atomically. Throws Error.
void write_manifest(const std::filesystem::path& path, const CacheManifest& manifest);
/// Throws DataError naming the file and what is wrong with it.
CacheManifest read_manifest(const std::filesystem::path& path);

}  // namespace nf
