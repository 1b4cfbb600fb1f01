#include "neuroflux/cache_reader.h"

#include <algorithm>
#include <limits>
#include <span>
#include <utility>

#include "engine/error.h"
#include "engine/timer.h"
#include "neuroflux/cache_values.h"

namespace nf {
namespace {

constexpr std::int64_t kBatches = 2;  // one that the consumer has, one in the making

// In order, a window would only make the first batch wait for more chunks.
std::int64_t window_of(const CacheReadOptions& options, const CacheLayout& layout) {
  return std::min(options.shuffle ? options.window_chunks : 1, layout.chunks);
}

std::int64_t batch_bytes(const CacheLayout& layout, std::int64_t batch) {
  constexpr std::int64_t kFloat = sizeof(float), kLabel = sizeof(std::int32_t);
  return std::min(batch, layout.count) * (layout.sample_values * kFloat + kLabel);
}

// Of an epoch's buffers, when nothing is read ahead of a window.
std::int64_t epoch_bytes(const CacheLayout& layout, std::int64_t window, std::int64_t buffer_bytes,
                         std::int64_t batch) {
  constexpr std::int64_t kCount = sizeof(std::int64_t);
  return window * buffer_bytes + kBatches * batch_bytes(layout, batch) +
         CacheOrder::host_bytes(layout, window) + layout.chunks * kCount;
}

}  // namespace

CacheReader::CacheReader(std::filesystem::path folder, const std::string& name,
                         CacheReadOptions options)
    : CacheReader(std::make_unique<DiskChunkSource>(std::move(folder), name, options.storage),
                  options) {}

CacheReader::CacheReader(std::unique_ptr<ChunkSource> source, CacheReadOptions options)
    : options_(std::move(options)),
      source_(std::move(source)),
      layout_(cache_layout(spec())),
      batches_(static_cast<std::size_t>(kBatches)) {
  NF_CHECK(options_.window_chunks >= 1 && options_.read_ahead_chunks >= 1,
           "activation cache '{}': window of {} chunks and {} read ahead, at least 1 each expected",
           spec().name, options_.window_chunks, options_.read_ahead_chunks);
  if (options_.provenance && *options_.provenance != spec().provenance)
    fail_data("activation cache: {} has provenance {:016x}, {:016x} expected", source_->where(),
              spec().provenance, *options_.provenance);
  options_.window_chunks = window_of(options_, layout_);
  kept_ = HostCharge(options_.host, source_->fixed_host_bytes(),
                     fmt::format("activation cache '{}'", spec().name));
}

CacheReader::~CacheReader() { stop(); }

void CacheReader::stop() noexcept {
  active_ = false;
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      cancel_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  for (nn::Batch& batch : batches_) batch = {};
  epoch_ = HostCharge();
}

void CacheReader::start(std::int64_t batch, std::int64_t epoch) {
  NF_CHECK(batch >= 1, "activation cache '{}': batch of {}, at least 1 expected", spec().name,
           batch);
  stop();
  batch_size_ = std::min(batch, layout_.count);
  // As many chunks ahead as the limits leave room for, none at the least.
  const std::int64_t window = options_.window_chunks, each = source_->buffer_bytes();
  const std::int64_t least = epoch_bytes(layout_, window, each, batch_size_);
  std::int64_t left = std::numeric_limits<std::int64_t>::max();
  if (options_.host_limit_bytes > 0) left = options_.host_limit_bytes - kept_.bytes();
  NF_CHECK(least <= left,
           "activation cache '{}': reading batches of {} takes {} bytes of host memory at the "
           "least, the limit is {}",
           spec().name, batch_size_, kept_.bytes() + least, options_.host_limit_bytes);
  if (options_.host != nullptr) left = std::min(left, options_.host->left());
  std::int64_t ahead = std::min(options_.read_ahead_chunks, layout_.chunks - window);
  if (each > 0 && left >= least) ahead = std::min(ahead, (left - least) / each);
  epoch_ =
      HostCharge(options_.host, least + (left >= least ? ahead * each : 0),
                 fmt::format("activation cache '{}', batches of {}", spec().name, batch_size_));

  order_ = CacheOrder(layout_, {options_.shuffle, options_.seed, window}, epoch);
  unused_.resize(order_.chunks().size());
  for (std::size_t i = 0; i < unused_.size(); ++i) unused_[i] = layout_.samples(order_.chunks()[i]);
  delivered_ = 0;
  // No thread runs now, so the shared part needs no lock.
  cancel_ = false;
  damaged_ = nullptr;
  made_ = handed_ = back_ = 0;
  failure_ = nullptr;
  thread_ = std::thread([this, buffers = window + ahead] {
    try {
      source_->begin(order_.chunks(), buffers);
      read();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    // Here, as the kernel gives up the requests of a thread that is gone.
    source_->end();
    changed_.notify_all();
  });
  active_ = true;
}

void CacheReader::read() {
  const std::int64_t count = (layout_.count + batch_size_ - 1) / batch_size_;
  for (std::int64_t number = 0; number < count; ++number) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return cancel_ || number - back_ < kBatches; });
      if (cancel_) return;
    }
    const std::int64_t n = std::min(batch_size_, layout_.count - number * batch_size_);
    if (!make_batch(batches_[static_cast<std::size_t>(number % kBatches)], n)) return;
    source_->advance();
    {
      const std::lock_guard lock(mutex_);
      made_ = number + 1;
    }
    changed_.notify_all();
  }
}

bool CacheReader::make_batch(nn::Batch& batch, std::int64_t n) {
  batch.size = n;
  batch.images.resize(static_cast<std::size_t>(n * layout_.sample_values));
  batch.labels.resize(static_cast<std::size_t>(n));
  const auto values = static_cast<std::size_t>(layout_.sample_values);
  for (std::size_t i = 0; i < batch.labels.size(); ++i) {
    const auto [position, index] = order_.next();
    const std::int64_t chunk = order_.chunks()[static_cast<std::size_t>(position)];
    ChunkSource::Chunk& held = source_->get(position);
    if (!held.damage.empty() && !repaired(held, chunk)) return false;
    decode_values(held.bytes.data() + index * layout_.sample_bytes, spec().dtype,
                  std::span(batch.images).subspan(i * values, values));
    batch.labels[i] =
        source_->labels()[static_cast<std::size_t>(layout_.first_sample(chunk) + index)];
    if (--unused_[static_cast<std::size_t>(position)] > 0) continue;
    bytes_read_ += layout_.payload(chunk);
    source_->release(position);
  }
  return true;
}

// The consumer's thread recomputes, as the device is its own.
bool CacheReader::repaired(ChunkSource::Chunk& held, std::int64_t chunk) {
  std::unique_lock lock(mutex_);
  damaged_ = &held;
  damaged_chunk_ = chunk;
  changed_.notify_all();
  changed_.wait(lock, [&] { return cancel_ || damaged_ == nullptr; });
  return !cancel_;
}

const nn::Batch* CacheReader::next() {
  NF_CHECK(active_, "activation cache '{}': next without a started epoch", spec().name);
  if (delivered_ == layout_.count) {
    // What the epoch held is given back; asking again gets the same answer.
    stop();
    active_ = true;
    return nullptr;
  }
  // Ended until proven otherwise.
  active_ = false;
  std::unique_lock lock(mutex_);
  back_ = handed_;
  changed_.notify_all();
  const auto ready = [&] { return made_ > handed_ || failure_ || damaged_ != nullptr; };
  while (made_ == handed_) {
    if (!ready()) {
      const Timer timer;
      changed_.wait(lock, ready);
      wait_seconds_ += timer.seconds();
    }
    if (made_ > handed_) break;
    if (failure_) std::rethrow_exception(failure_);
    ChunkSource::Chunk& held = *damaged_;
    const std::int64_t chunk = damaged_chunk_;
    lock.unlock();
    repair(held, chunk);
    lock.lock();
    damaged_ = nullptr;
    changed_.notify_all();
  }
  const nn::Batch& batch = batches_[static_cast<std::size_t>(handed_++ % kBatches)];
  delivered_ += batch.size;
  active_ = true;
  return &batch;
}

void CacheReader::repair(ChunkSource::Chunk& held, std::int64_t chunk) {
  const std::int64_t first = layout_.first_sample(chunk);
  const std::int64_t n = layout_.samples(chunk);
  if (!options_.recompute) throw DataError(held.damage);
  std::vector<float> values(static_cast<std::size_t>(n * layout_.sample_values));
  options_.recompute(first, n, values.data());
  // In the stored format, so that this epoch sees what later ones will read.
  encode_values(values, spec().dtype, held.bytes.data());
  const std::string outcome = source_->repair(chunk, held.bytes);
  if (options_.warn)
    options_.warn(fmt::format("{}; samples {} to {} recomputed, {}", held.damage, first,
                              first + n - 1, outcome));
  held.damage.clear();
}

std::int64_t CacheReader::kept_host_bytes(const CacheSpec& spec, CachePlace place) {
  return place == CachePlace::disk ? DiskChunkSource::fixed_host_bytes(cache_layout(spec)) : 0;
}

std::int64_t CacheReader::epoch_host_bytes(const CacheSpec& spec, const CacheReadOptions& options,
                                           std::int64_t batch, CachePlace place) {
  const CacheLayout layout = cache_layout(spec);
  return epoch_bytes(layout, window_of(options, layout),
                     place == CachePlace::disk ? layout.chunk_stride : 0, batch);
}

}  // namespace nf
