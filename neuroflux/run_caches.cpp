#include "neuroflux/run_caches.h"

#include <algorithm>
#include <utility>

#include "engine/error.h"

namespace nf {
namespace {

CacheReadOptions read_options(const RunCacheOptions& options, bool shuffle) {
  CacheReadOptions read;
  read.shuffle = shuffle;
  read.window_chunks = options.window_chunks;
  read.read_ahead_chunks = options.read_ahead_chunks;
  return read;
}

std::int64_t kept_bytes(const std::vector<CacheSpec>& caches, CachePlace place) {
  std::int64_t bytes = 0;
  for (const CacheSpec& spec : caches) bytes += CacheReader::kept_host_bytes(spec, place);
  return bytes;
}

}  // namespace

RunCaches::RunCaches(RunCacheOptions options)
    : options_(std::move(options)),
      host_(std::make_shared<HostMemory>(options_.host_memory_bytes)),
      memory_(host_) {
  NF_CHECK(options_.host_memory_bytes >= 0,
           "activation caches: the limit on host memory must not be negative, got {}",
           options_.host_memory_bytes);
}

CacheWriter RunCaches::writer(CacheSpec spec, std::int64_t reserved) {
  if (options_.place == CachePlace::memory) {
    auto sink = memory_.write(spec);
    return {std::move(sink), std::move(spec), host_};
  }
  CacheWriteOptions write{.storage = options_.storage, .host = host_};
  if (host_->limit() > 0) {
    const std::int64_t least = CacheWriter::least_host_bytes(spec, CachePlace::disk);
    write.host_limit_bytes = std::max(least, host_->left() - reserved);
  }
  return {options_.folder, std::move(spec), std::move(write)};
}

std::unique_ptr<CacheReader> RunCaches::reader(const std::string& name,
                                               CacheReadOptions options) const {
  options.window_chunks = options_.window_chunks;
  options.read_ahead_chunks = options_.read_ahead_chunks;
  options.storage = options_.storage;
  options.host = host_;
  if (options_.place == CachePlace::memory)
    return std::make_unique<CacheReader>(memory_.read(name), std::move(options));
  return std::make_unique<CacheReader>(options_.folder, name, std::move(options));
}

void RunCaches::remove(const std::string& name) {
  if (options_.place == CachePlace::memory)
    memory_.remove(name);
  else
    remove_cache(options_.folder, name);
}

std::int64_t CacheGeneration::bytes(CachePlace place) const {
  std::int64_t bytes = 0;
  for (const auto* caches : {&train, &validation})
    for (const CacheSpec& spec : *caches)
      bytes += place == CachePlace::disk ? cache_bytes(spec) : MemoryCaches::host_bytes(spec);
  return bytes;
}

std::int64_t least_host_bytes(const CacheGeneration& input, const CacheGeneration& output,
                              std::int64_t batch, const RunCacheOptions& options) {
  const CachePlace place = options.place;
  const auto epoch = [&](const std::vector<CacheSpec>& caches, bool shuffle) {
    return caches.empty() ? 0
                          : CacheReader::epoch_host_bytes(
                                caches.front(), read_options(options, shuffle), batch, place);
  };
  const auto writing = [&](const std::vector<CacheSpec>& caches) {
    return caches.empty() ? 0 : CacheWriter::least_host_bytes(caches.front(), place);
  };
  const std::int64_t kept = kept_bytes(input.train, place) + kept_bytes(input.validation, place);
  std::int64_t least = kept + std::max(epoch(input.train, true), epoch(input.validation, false));
  std::int64_t cached = 0;
  if (place == CachePlace::memory) {
    cached = input.bytes(place);
    least += cached;
  }
  // One set after the other, view by view; in memory the last of them counts with all before it.
  for (const auto* set : {&output.train, &output.validation}) {
    if (set->empty()) continue;
    if (place == CachePlace::memory)
      cached += static_cast<std::int64_t>(set->size()) * MemoryCaches::host_bytes(set->front());
    const auto& source = set == &output.train ? input.train : input.validation;
    least = std::max(least, cached + kept + epoch(source, false) + writing(*set));
  }
  return least;
}

ViewedReader::ViewedReader(std::vector<std::unique_ptr<CacheReader>> views)
    : views_(std::move(views)), current_(nullptr) {
  NF_CHECK(!views_.empty(), "activation caches: at least one view is needed, got none");
  current_ = views_.front().get();
  for (const auto& view : views_)
    NF_CHECK(view->sample_shape() == sample_shape() && view->count() == count(),
             "activation cache '{}': holds {} samples of {}, the first view {} of {}",
             view->spec().name, view->count(), view->sample_shape().str(), count(),
             sample_shape().str());
}

void ViewedReader::start(std::int64_t batch, std::int64_t epoch) {
  NF_CHECK(epoch >= 0, "activation cache '{}': epoch must not be negative, is {}",
           current_->spec().name, epoch);
  current_->stop();
  current_ = views_[static_cast<std::size_t>(epoch) % views_.size()].get();
  current_->start(batch, epoch);
}

double ViewedReader::wait_seconds() const {
  double seconds = 0.0;
  for (const auto& view : views_) seconds += view->wait_seconds();
  return seconds;
}

}  // namespace nf
