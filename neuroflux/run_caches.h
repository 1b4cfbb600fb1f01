// Where a run keeps its activation caches, and what host memory they may take together.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "neuroflux/activation_cache.h"
#include "neuroflux/memory_caches.h"

namespace nf {

struct RunCacheOptions {
  CachePlace place = CachePlace::disk;
  std::filesystem::path folder;        // place disk
  std::int64_t host_memory_bytes = 0;  // of all caches and their buffers together; 0: no limit
  CacheStorage storage = {};           // place disk
  std::int64_t window_chunks = kWindowChunks;  // CacheReadOptions
  std::int64_t read_ahead_chunks = 8;
};

class RunCaches {
 public:
  explicit RunCaches(RunCacheOptions options);

  /// As CacheWriter's, and leaves `reserved` bytes of the limit on host memory for others.
  CacheWriter writer(CacheSpec spec, std::int64_t reserved);
  /// As CacheReader's; place, window and account of `options` are set here.
  std::unique_ptr<CacheReader> reader(const std::string& name, CacheReadOptions options) const;
  /// A cache that doesn't exist is no error.
  void remove(const std::string& name);

  const RunCacheOptions& options() const { return options_; }
  HostMemory& host() const { return *host_; }

 private:
  RunCacheOptions options_;
  std::shared_ptr<HostMemory> host_;
  MemoryCaches memory_;
};

/// What is cached between two blocks, for predictions: K views of the training set, the validation
/// set where there is one.
struct CacheGeneration {
  std::vector<CacheSpec> train;
  std::vector<CacheSpec> validation;

  /// On storage, or in host memory without any buffers.
  std::int64_t bytes(CachePlace place) const;
};

/// The least host memory that caches take while a block trains in batches of `batch` from `input`
/// and fills `output`; either may be empty.
std::int64_t least_host_bytes(const CacheGeneration& input, const CacheGeneration& output,
                              std::int64_t batch, const RunCacheOptions& options);

/// One of several caches of the same samples each epoch: that of number epoch % views.
class ViewedReader : public nn::BatchSource {
 public:
  /// At least one; all of one shape and count.
  explicit ViewedReader(std::vector<std::unique_ptr<CacheReader>> views);

  Shape sample_shape() const override { return views_.front()->sample_shape(); }
  std::int64_t count() const override { return views_.front()->count(); }
  void start(std::int64_t batch, std::int64_t epoch) override;
  const nn::Batch* next() override { return current_->next(); }

  double wait_seconds() const;

 private:
  std::vector<std::unique_ptr<CacheReader>> views_;
  CacheReader* current_;
};

}  // namespace nf
