#include <algorithm>
#include <span>
#include <utility>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/timer.h"
#include "neuroflux/activation_cache.h"

namespace nf {

CacheReader::CacheReader(std::filesystem::path folder, const std::string& name,
                         CacheReadOptions options)
    : folder_(std::move(folder)),
      options_(std::move(options)),
      manifest_(read_manifest(cache_files(folder_, name).manifest)),
      layout_(cache_layout(manifest_.spec)),
      files_(cache_files(folder_, name)),
      data_(files_.data, DiskFile::Mode::read) {
  const CacheSpec& spec = manifest_.spec;
  NF_CHECK(options_.window_chunks >= 1 && options_.read_ahead_chunks >= 1,
           "activation cache '{}': window of {} chunks and {} read ahead, at least 1 each expected",
           name, options_.window_chunks, options_.read_ahead_chunks);
  if (spec.name != name)
    fail_data("activation cache: manifest {} is of cache '{}'", files_.manifest.string(),
              spec.name);
  if (options_.provenance && *options_.provenance != spec.provenance)
    fail_data("activation cache: manifest {} has provenance {:016x}, {:016x} expected",
              files_.manifest.string(), spec.provenance, *options_.provenance);
  const DiskFile labels(files_.labels, DiskFile::Mode::read);
  const auto check_size = [](const DiskFile& file, std::int64_t bytes) {
    if (const std::int64_t found = file.size(); found != bytes)
      fail_data("activation cache: {} has {} bytes, its manifest says {}", file.path().string(),
                found, bytes);
  };
  check_size(data_, layout_.data_bytes);
  check_size(labels, layout_.label_bytes);
  labels_.resize(static_cast<std::size_t>(spec.count));
  const auto label_bytes = std::as_writable_bytes(std::span(labels_));
  labels.read_at(0, label_bytes);
  if (const std::uint64_t found = hash_bytes(label_bytes); found != manifest_.labels_checksum)
    fail_data("activation cache: {} has checksum {:016x}, its manifest says {:016x}",
              files_.labels.string(), found, manifest_.labels_checksum);

  // In order, a window would only make the first batch wait for more chunks.
  const std::int64_t window = options_.shuffle ? options_.window_chunks : 1;
  options_.window_chunks = std::min(window, layout_.chunks);
  const std::int64_t ahead =
      std::min(options_.read_ahead_chunks, layout_.chunks - options_.window_chunks);
  slots_.resize(static_cast<std::size_t>(options_.window_chunks + ahead));
  for (Slot& slot : slots_)
    slot.values.resize(static_cast<std::size_t>(layout_.samples_per_chunk * layout_.sample_values));
  if (spec.dtype != DType::f32) stored_.resize(static_cast<std::size_t>(layout_.payload(0)));
  slot_of_.resize(static_cast<std::size_t>(layout_.chunks));
}

CacheReader::~CacheReader() { stop(); }

void CacheReader::stop() {
  active_ = false;
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    cancel_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CacheReader::start(std::int64_t batch, std::int64_t epoch) {
  NF_CHECK(batch >= 1, "activation cache '{}': batch of {}, at least 1 expected", spec().name,
           batch);
  stop();
  batch_size_ = std::min(batch, layout_.count);
  key_ = random_key(options_.seed, Purpose::shuffle, static_cast<std::uint64_t>(epoch));
  order_.resize(static_cast<std::size_t>(layout_.chunks));
  if (options_.shuffle) {
    RandomStream random(key_, 0);
    order_ = permutation(layout_.chunks, random);
  } else {
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<std::int64_t>(i);
  }
  delivered_ = 0;
  window_.clear();
  cursor_ = 0;
  windows_ = 0;
  ready_ = 0;
  // No thread runs now, so the shared part needs no lock.
  cancel_ = false;
  loaded_ = 0;
  failure_ = nullptr;
  free_.clear();
  for (std::size_t i = slots_.size(); i > 0; --i) free_.push_back(i - 1);
  thread_ = std::thread([this] { read_ahead(); });
  active_ = true;
}

void CacheReader::read_ahead() {
  try {
    for (std::size_t position = 0; position < order_.size(); ++position) {
      std::size_t slot = 0;
      if (!acquire(slot)) return;
      load(slots_[slot], order_[position]);
      {
        const std::lock_guard lock(mutex_);
        slot_of_[position] = slot;
        ++loaded_;
      }
      changed_.notify_all();
    }
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    changed_.notify_all();
  }
}

bool CacheReader::acquire(std::size_t& slot) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return cancel_ || !free_.empty(); });
  if (cancel_) return false;
  slot = free_.back();
  free_.pop_back();
  return true;
}

void CacheReader::load(Slot& slot, std::int64_t chunk) {
  slot.chunk = chunk;
  slot.unused = layout_.samples(chunk);
  slot.damage.clear();
  const auto values =
      std::span(slot.values)
          .first(static_cast<std::size_t>(layout_.samples(chunk) * layout_.sample_values));
  const auto payload = static_cast<std::size_t>(layout_.payload(chunk));
  const bool converts = spec().dtype != DType::f32;
  const auto bytes = converts ? std::span(stored_).first(payload) : std::as_writable_bytes(values);
  try {
    data_.read_at(layout_.offset(chunk), bytes);
    bytes_read_ += layout_.payload(chunk);
  } catch (const DataError& error) {
    slot.damage = error.what();
    return;
  }
  const std::uint64_t stated = manifest_.chunk_checksums[static_cast<std::size_t>(chunk)];
  const std::uint64_t found = hash_bytes(bytes);
  if (found != stated)
    slot.damage = fmt::format("checksum {:016x}, the manifest says {:016x}", found, stated);
  else if (converts)
    decode_values(bytes.data(), spec().dtype, values);
}

const nn::Batch* CacheReader::next() {
  NF_CHECK(active_, "activation cache '{}': next without a started epoch", spec().name);
  const std::int64_t n = std::min(batch_size_, layout_.count - delivered_);
  if (n == 0) return nullptr;
  // Ended until proven otherwise: a throw below leaves the batch half made.
  active_ = false;
  batch_.size = n;
  batch_.images.resize(static_cast<std::size_t>(n * layout_.sample_values));
  batch_.labels.resize(static_cast<std::size_t>(n));
  float* out = batch_.images.data();
  for (std::int32_t& label : batch_.labels) {
    if (cursor_ == window_.size()) open_window();
    const auto [position, index] = window_[cursor_++];
    Slot& slot = slot_at(position);
    const float* values = slot.values.data() + index * layout_.sample_values;
    out = std::copy_n(values, layout_.sample_values, out);
    label = labels_[static_cast<std::size_t>(layout_.first_sample(slot.chunk) + index)];
    if (--slot.unused == 0) release(slot_of_[static_cast<std::size_t>(position)]);
  }
  delivered_ += n;
  active_ = true;
  return &batch_;
}

void CacheReader::open_window() {
  const std::int64_t first = windows_++ * options_.window_chunks;
  const std::int64_t last = std::min(first + options_.window_chunks, layout_.chunks);
  std::vector<Item> items;
  for (std::int64_t position = first; position < last; ++position)
    for (std::int64_t i = 0; i < layout_.samples(order_[static_cast<std::size_t>(position)]); ++i)
      items.push_back({position, i});
  cursor_ = 0;
  if (!options_.shuffle) {
    window_ = std::move(items);
    return;
  }
  RandomStream random(key_, static_cast<std::uint64_t>(windows_));
  window_.clear();
  for (const std::int64_t i : permutation(static_cast<std::int64_t>(items.size()), random))
    window_.push_back(items[static_cast<std::size_t>(i)]);
}

CacheReader::Slot& CacheReader::slot_at(std::int64_t position) {
  if (position >= ready_) wait_for(position);
  Slot& slot = slots_[slot_of_[static_cast<std::size_t>(position)]];
  if (!slot.damage.empty()) repair(slot);
  return slot;
}

void CacheReader::wait_for(std::int64_t position) {
  std::unique_lock lock(mutex_);
  const auto done = [&] { return loaded_ > position || failure_; };
  if (!done()) {
    const Timer timer;
    changed_.wait(lock, done);
    wait_seconds_ += timer.seconds();
  }
  ready_ = loaded_;
  if (loaded_ <= position) std::rethrow_exception(failure_);
}

void CacheReader::release(std::size_t slot) {
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(slot);
  }
  changed_.notify_all();
}

void CacheReader::repair(Slot& slot) {
  const std::int64_t chunk = slot.chunk;
  const std::int64_t first = layout_.first_sample(chunk);
  const std::int64_t n = layout_.samples(chunk);
  const std::string what =
      fmt::format("activation cache: {}, chunk {} at byte {}: {}", files_.data.string(), chunk,
                  layout_.offset(chunk), slot.damage);
  if (!options_.recompute) throw DataError(what);
  const auto values =
      std::span(slot.values).first(static_cast<std::size_t>(n * layout_.sample_values));
  options_.recompute(first, n, slot.values.data());
  // Through the stored format, so that this epoch sees what later ones will read.
  std::vector<std::byte> bytes(static_cast<std::size_t>(layout_.payload(chunk)));
  encode_values(values, spec().dtype, bytes.data());
  decode_values(bytes.data(), spec().dtype, values);
  slot.damage.clear();

  std::string outcome = "rewritten";
  try {
    DiskFile file(files_.data, DiskFile::Mode::write);
    file.write_at(layout_.offset(chunk), bytes);
    std::uint64_t& stated = manifest_.chunk_checksums[static_cast<std::size_t>(chunk)];
    const std::uint64_t found = hash_bytes(bytes);
    if (found != stated) {
      // The data first: a manifest that runs ahead of it would condemn a good chunk. And the file's
      // manifest, not ours: another reader may have repaired other chunks since.
      file.sync();
      CacheManifest current = read_manifest(files_.manifest);
      NF_CHECK(current.spec == spec(), "activation cache: {} is now of another cache",
               files_.manifest.string());
      current.chunk_checksums[static_cast<std::size_t>(chunk)] = found;
      write_manifest(files_.manifest, current);
      stated = found;
      outcome = "rewritten with other values than at first, manifest updated";
    }
  } catch (const Error& error) {
    outcome = fmt::format("not repaired in the file: {}", error.what());
  }
  warn(fmt::format("{}; samples {} to {} recomputed, {}", what, first, first + n - 1, outcome));
}

void CacheReader::warn(const std::string& message) const {
  if (options_.warn) options_.warn(message);
}

std::int64_t CacheReader::host_bytes() const {
  const auto bytes = [](const auto& values) { return values.capacity() * sizeof(values[0]); };
  std::size_t sum = bytes(stored_) + bytes(labels_) + bytes(order_) + bytes(slot_of_) +
                    bytes(window_) + bytes(batch_.images) + bytes(batch_.labels);
  for (const Slot& slot : slots_) sum += bytes(slot.values);
  return static_cast<std::int64_t>(sum);
}

}  // namespace nf
