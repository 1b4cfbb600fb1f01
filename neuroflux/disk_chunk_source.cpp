#include <utility>

#include "engine/error.h"
#include "neuroflux/checksum.h"
#include "neuroflux/disk_chunks.h"

namespace nf {

DiskChunkSource::DiskChunkSource(std::filesystem::path folder, const std::string& name,
                                 const CacheStorage& storage)
    : folder_(std::move(folder)),
      files_(cache_files(folder_, name)),
      manifest_(read_manifest(files_.manifest)),
      layout_(cache_layout(manifest_.spec)),
      data_(files_.data, DiskFile::Mode::read,
            storage.direct ? DiskFile::Access::direct : DiskFile::Access::buffered),
      queue_(make_storage_queue(storage.queue)) {
  if (spec().name != name)
    fail_data("activation cache: manifest {} is of cache '{}'", files_.manifest.string(),
              spec().name);
  const DiskFile labels(files_.labels, DiskFile::Mode::read);
  const auto check_size = [](const DiskFile& file, std::int64_t bytes) {
    if (const std::int64_t found = file.size(); found != bytes)
      fail_data("activation cache: {} has {} bytes, its manifest says {}", file.path().string(),
                found, bytes);
  };
  check_size(data_, layout_.data_bytes);
  check_size(labels, layout_.label_bytes);
  labels_.resize(static_cast<std::size_t>(layout_.count));
  const auto label_bytes = std::as_writable_bytes(std::span(labels_));
  labels.read_at(0, label_bytes);
  if (const std::uint64_t found = hash_bytes(label_bytes); found != manifest_.labels_checksum)
    fail_data("activation cache: {} has checksum {:016x}, its manifest says {:016x}",
              files_.labels.string(), found, manifest_.labels_checksum);
}

std::int64_t DiskChunkSource::fixed_host_bytes(const CacheLayout& layout) {
  // Labels; a checksum, a place in the order and a slot's number for each chunk.
  return layout.label_bytes + 3 * layout.chunks * static_cast<std::int64_t>(sizeof(std::int64_t));
}

void DiskChunkSource::begin(const std::vector<std::int64_t>& order, std::int64_t buffers) {
  end();
  order_ = order;
  slot_of_.resize(order.size());
  buffers_ = StagingBuffers(buffers, layout_.chunk_stride);
  slots_.resize(static_cast<std::size_t>(buffers));
  for (std::int64_t i = buffers; i > 0; --i) free_.push_back(i - 1);
  request_more();
}

void DiskChunkSource::request_more() {
  const auto count = static_cast<std::int64_t>(order_.size());
  while (requested_ < count && !free_.empty() && queue_->in_flight() < queue_->depth()) {
    const std::int64_t buffer = free_.back();
    const std::int64_t chunk = order_[static_cast<std::size_t>(requested_)];
    const auto stored = static_cast<std::size_t>(layout_.stored(chunk));
    queue_->read(data_, layout_.offset(chunk), buffers_[buffer].first(stored),
                 static_cast<std::uint64_t>(buffer));
    free_.pop_back();
    slots_[static_cast<std::size_t>(buffer)] = {
        {buffers_[buffer].first(static_cast<std::size_t>(layout_.payload(chunk))), {}},
        requested_,
        false};
    slot_of_[static_cast<std::size_t>(requested_++)] = buffer;
  }
}

void DiskChunkSource::take(const StorageQueue::Done& done) {
  Slot& slot = slots_[static_cast<std::size_t>(done.tag)];
  slot.loaded = true;
  const std::int64_t chunk = order_[static_cast<std::size_t>(slot.position)];
  std::string reason = done.error;
  if (reason.empty()) {
    const std::uint64_t stated = manifest_.chunk_checksums[static_cast<std::size_t>(chunk)];
    const std::uint64_t found = hash_bytes(slot.chunk.bytes);
    if (found != stated)
      reason = fmt::format("checksum {:016x}, the manifest says {:016x}", found, stated);
  }
  if (!reason.empty())
    slot.chunk.damage = fmt::format("activation cache: {}, chunk {} at byte {}: {}",
                                    files_.data.string(), chunk, layout_.offset(chunk), reason);
}

ChunkSource::Chunk& DiskChunkSource::get(std::int64_t position) {
  request_more();
  while (position >= requested_ || !slot_at(position).loaded) {
    take(queue_->wait());
    request_more();
  }
  return slot_at(position).chunk;
}

void DiskChunkSource::release(std::int64_t position) {
  free_.push_back(slot_of_[static_cast<std::size_t>(position)]);
  advance();
}

void DiskChunkSource::advance() {
  while (const auto done = queue_->poll()) take(*done);
  request_more();
}

void DiskChunkSource::end() noexcept {
  queue_->drain();
  order_.clear();
  slots_.clear();
  free_.clear();
  requested_ = 0;
  buffers_ = StagingBuffers();
}

std::string DiskChunkSource::repair(std::int64_t chunk, std::span<const std::byte> bytes) {
  try {
    return rewrite(chunk, bytes);
  } catch (const Error& error) {
    return fmt::format("not repaired in the file: {}", error.what());
  }
}

std::string DiskChunkSource::rewrite(std::int64_t chunk, std::span<const std::byte> bytes) {
  // With its padding, which a file that was cut lacks.
  std::vector<std::byte> padded(bytes.begin(), bytes.end());
  padded.resize(static_cast<std::size_t>(layout_.stored(chunk)));
  DiskFile file(files_.data, DiskFile::Mode::write);
  file.write_at(layout_.offset(chunk), padded);
  std::uint64_t& stated = manifest_.chunk_checksums[static_cast<std::size_t>(chunk)];
  const std::uint64_t found = hash_bytes(bytes);
  if (found == stated) return "rewritten";
  // The data first: a manifest that runs ahead of it would condemn a good chunk. And the file's
  // manifest, not ours: another reader may have repaired other chunks since.
  file.sync();
  CacheManifest current = read_manifest(files_.manifest);
  NF_CHECK(current.spec == spec(), "activation cache: {} is now of another cache",
           files_.manifest.string());
  current.chunk_checksums[static_cast<std::size_t>(chunk)] = found;
  write_manifest(files_.manifest, current);
  stated = found;
  return "rewritten with other values than at first, manifest updated";
}

}  // namespace nf
