#include <algorithm>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "engine/timer.h"
#include "neuroflux/disk_chunks.h"

namespace nf {

DiskChunkSink::DiskChunkSink(std::filesystem::path folder, const CacheSpec& spec,
                             const CacheStorage& storage, std::int64_t buffers)
    : folder_(std::move(folder)),
      layout_(cache_layout(spec)),
      files_(cache_files(folder_, spec.name)),
      buffers_(buffers, layout_.chunk_stride),
      queue_(make_storage_queue(storage.queue)) {
  const std::int64_t need = cache_bytes(spec);
  std::error_code code;
  made_folder_ = std::filesystem::create_directories(folder_, code);
  NF_CHECK(!code, "activation cache '{}': cannot make folder {}: {}", spec.name, folder_.string(),
           code.message());
  try {
    remove_cache(folder_, spec.name);
    const std::int64_t have = free_bytes(folder_);
    NF_CHECK(need <= have, "activation cache '{}': needs {} bytes in {}, {} are free", spec.name,
             need, folder_.string(), have);
    data_ = DiskFile(files_.data, DiskFile::Mode::create,
                     storage.direct ? DiskFile::Access::direct : DiskFile::Access::buffered);
    data_.reserve(layout_.data_bytes);
    labels_file_ = DiskFile(files_.labels, DiskFile::Mode::create);
    labels_file_.reserve(layout_.label_bytes);
  } catch (...) {
    discard();
    throw;
  }
  for (std::int64_t i = 0; i < buffers; ++i) free_.push_back(i);
}

DiskChunkSink::~DiskChunkSink() {
  queue_->drain();
  if (!finished_) discard();
}

std::span<std::byte> DiskChunkSink::room() {
  while (const auto done = queue_->poll()) taken(*done);
  while (free_.empty() || queue_->in_flight() == queue_->depth()) await_one();
  return buffers_[free_.back()];
}

void DiskChunkSink::put(std::int64_t chunk) {
  const std::int64_t buffer = free_.back();
  const std::int64_t offset = layout_.offset(chunk);
  queue_->write(data_, offset,
                buffers_[buffer].first(static_cast<std::size_t>(layout_.stored(chunk))),
                static_cast<std::uint64_t>(chunk));
  free_.pop_back();
  writing_.emplace_back(chunk, buffer);
}

void DiskChunkSink::await_one() {
  const Timer timer;
  const StorageQueue::Done done = queue_->wait();
  wait_seconds_ += timer.seconds();
  taken(done);
}

void DiskChunkSink::taken(const StorageQueue::Done& done) {
  if (!done.error.empty()) fail_write(done);
  const auto found = std::find_if(writing_.begin(), writing_.end(), [&](const auto& each) {
    return std::cmp_equal(each.first, done.tag);
  });
  free_.push_back(found->second);
  writing_.erase(found);
}

void DiskChunkSink::fail_write(StorageQueue::Done first) {
  // Of several that fail, the first in the file tells most.
  while (queue_->in_flight() > 0) {
    StorageQueue::Done done = queue_->wait();
    if (!done.error.empty() && done.tag < first.tag) first = std::move(done);
  }
  throw Error(first.error);
}

void DiskChunkSink::finish(const CacheManifest& manifest, const std::vector<std::int32_t>& labels) {
  while (queue_->in_flight() > 0) await_one();
  const Timer timer;
  labels_file_.write_at(0, std::as_bytes(std::span(labels)));
  data_.sync();
  labels_file_.sync();
  data_.close();
  labels_file_.close();
  write_manifest(files_.manifest, manifest);
  wait_seconds_ += timer.seconds();
  finished_ = true;
}

void DiskChunkSink::discard() noexcept {
  data_.close();
  labels_file_.close();
  std::error_code ignored;
  std::filesystem::remove(files_.manifest, ignored);
  std::filesystem::remove(files_.data, ignored);
  std::filesystem::remove(files_.labels, ignored);
  // Only an empty folder can be removed so, and only one that was not there before.
  if (made_folder_) std::filesystem::remove(folder_, ignored);
}

}  // namespace nf
