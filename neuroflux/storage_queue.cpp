#include "neuroflux/storage_queue.h"

#include <algorithm>
#include <utility>

#include "engine/error.h"

namespace nf {

std::string_view to_string(StorageEngine engine) {
  switch (engine) {
    case StorageEngine::automatic:
      return "automatic";
    case StorageEngine::uring:
      return "io_uring";
    case StorageEngine::threads:
      return "threads";
  }
  return "?";
}

StorageEngine parse_storage_engine(std::string_view name) {
  for (const auto engine : {StorageEngine::automatic, StorageEngine::uring, StorageEngine::threads})
    if (name == to_string(engine)) return engine;
  fail("storage engine: must be automatic, io_uring or threads, got \"{}\"", name);
}

void StorageQueue::read(const DiskFile& file, std::int64_t offset, std::span<std::byte> bytes,
                        std::uint64_t tag) {
  request({file, offset, bytes, tag});
}

void StorageQueue::write(const DiskFile& file, std::int64_t offset,
                         std::span<const std::byte> bytes, std::uint64_t tag) {
  request({file, offset, bytes, tag});
}

void StorageQueue::request(StorageTransfer transfer) {
  NF_CHECK(in_flight() < depth_, "storage queue: {} requests are in flight, {} may be", in_flight(),
           depth_);
  in_flight_.push_back(std::make_unique<StorageTransfer>(std::move(transfer)));
  try {
    submit(in_flight_.back().get());
  } catch (...) {
    in_flight_.pop_back();
    throw;
  }
}

StorageQueue::Done StorageQueue::wait() {
  NF_CHECK(!in_flight_.empty(), "storage queue: nothing is in flight");
  return take(finished(true));
}

std::optional<StorageQueue::Done> StorageQueue::poll() {
  if (in_flight_.empty()) return std::nullopt;
  const StorageTransfer* transfer = finished(false);
  if (transfer == nullptr) return std::nullopt;
  return take(transfer);
}

StorageQueue::Done StorageQueue::take(const StorageTransfer* transfer) {
  const auto found = std::find_if(in_flight_.begin(), in_flight_.end(),
                                  [&](const auto& each) { return each.get() == transfer; });
  Done done{transfer->tag(), transfer->error()};
  in_flight_.erase(found);
  return done;
}

void StorageQueue::drain() noexcept {
  while (!in_flight_.empty()) wait();
}

std::unique_ptr<StorageQueue> make_storage_queue(const StorageQueueOptions& options) {
  NF_CHECK(options.depth >= 1 && options.depth <= 64,
           "storage queue: depth must be in [1, 64], got {}", options.depth);
  if (options.engine == StorageEngine::threads) return make_thread_queue(options.depth);
  std::string refusal;
  std::unique_ptr<StorageQueue> ring = make_uring_queue(options.depth, refusal);
  if (ring != nullptr) return ring;
  NF_CHECK(options.engine == StorageEngine::automatic, "storage queue: no io_uring: {}", refusal);
  return make_thread_queue(options.depth);
}

}  // namespace nf
