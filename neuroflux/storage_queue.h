// Reads and writes of files with several requests in flight: by io_uring, or by threads where the
// kernel or the build has none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "neuroflux/storage_transfer.h"

namespace nf {

enum class StorageEngine : std::uint8_t { automatic, uring, threads };
std::string_view to_string(StorageEngine engine);
/// Throws Error for any other name than to_string gives.
StorageEngine parse_storage_engine(std::string_view name);

struct StorageQueueOptions {
  StorageEngine engine = StorageEngine::automatic;  // automatic: uring where it can be had
  std::int64_t depth = 4;                           // requests in flight at most, 1 to 64
};

/// Requests are made and awaited by one thread at a time, which must not end before they have:
/// the kernel gives up the requests of a thread that is gone. They finish in any order.
class StorageQueue {
 public:
  struct Done {
    std::uint64_t tag = 0;
    std::string error;  // file, byte and the system's reason; empty: all bytes were moved
  };

  virtual ~StorageQueue() = default;
  StorageQueue(const StorageQueue&) = delete;
  StorageQueue& operator=(const StorageQueue&) = delete;

  /// Fills `bytes` from `offset` on; a file that ends earlier is an error of that request. `file`
  /// and `bytes` stay until wait() has returned `tag`. Throws Error when `depth` are in flight.
  void read(const DiskFile& file, std::int64_t offset, std::span<std::byte> bytes,
            std::uint64_t tag);
  /// Writes all of `bytes`, under the same terms.
  void write(const DiskFile& file, std::int64_t offset, std::span<const std::byte> bytes,
             std::uint64_t tag);
  /// A request that has finished; waits for one. Throws Error when none is in flight.
  Done wait();
  /// The same without waiting: empty when none has finished.
  std::optional<Done> poll();
  /// Waits for all requests and forgets what became of them.
  void drain() noexcept;

  std::int64_t in_flight() const { return static_cast<std::int64_t>(in_flight_.size()); }
  std::int64_t depth() const { return depth_; }
  virtual StorageEngine engine() const = 0;

 protected:
  explicit StorageQueue(std::int64_t depth) : depth_(depth) {}
  /// Sends what is left of `transfer` on its way.
  virtual void submit(StorageTransfer* transfer) = 0;
  /// One that was submitted and has nothing left, or an error. Without `wait`, null if none has.
  virtual StorageTransfer* finished(bool wait) = 0;

 private:
  void request(StorageTransfer transfer);
  Done take(const StorageTransfer* transfer);

  std::int64_t depth_;
  std::vector<std::unique_ptr<StorageTransfer>> in_flight_;
};

/// Throws Error for a depth out of range, and for `uring` where the kernel refuses it (its reason
/// is named) or the build is without.
std::unique_ptr<StorageQueue> make_storage_queue(const StorageQueueOptions& options = {});

/// Null where there is no io_uring; `refusal` is told why.
std::unique_ptr<StorageQueue> make_uring_queue(std::int64_t depth, std::string& refusal);
std::unique_ptr<StorageQueue> make_thread_queue(std::int64_t depth);

}  // namespace nf
