#include "neuroflux/storage_transfer.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

namespace nf {
namespace {

// Linux moves at most about 2 GiB in one call.
constexpr std::size_t kMostPerCall = std::size_t{1} << 30;
// With a pause of 1 ms each: a system that is busy for longer than that has failed.
constexpr int kMostRefusals = 1000;

}  // namespace

StorageTransfer::StorageTransfer(const DiskFile& file, std::int64_t offset,
                                 std::span<const std::byte> bytes, std::uint64_t tag)
    // The kernel's calls for writing only read from them.
    : StorageTransfer(file, offset, std::span(const_cast<std::byte*>(bytes.data()), bytes.size()),
                      tag) {
  kind_ = Kind::write;
}

StorageTransfer::StorageTransfer(const DiskFile& file, std::int64_t offset,
                                 std::span<std::byte> bytes, std::uint64_t tag)
    : kind_(Kind::read),
      file_(&file),
      offset_(offset),
      bytes_(bytes),
      tag_(tag),
      was_direct_(file.direct()) {}

unsigned StorageTransfer::size() const {
  return static_cast<unsigned>(std::min(bytes_.size(), kMostPerCall));
}

bool StorageTransfer::answered(std::int64_t result) {
  if (result > 0) {
    offset_ += result;
    bytes_ = bytes_.subspan(static_cast<std::size_t>(result));
    refusals_ = 0;
    return bytes_.empty();
  }
  if (result == -EINTR) return false;
  if (result == -EAGAIN && ++refusals_ < kMostRefusals) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return false;
  }
  // The rest after a short transfer, or what this file system wants more aligned than 4 KiB.
  if (result == -EINVAL && was_direct_) {
    file_->leave_direct();
    was_direct_ = false;
    return false;
  }
  const std::string path = file_->path().string();
  if (result == 0 && bytes_.empty()) return true;
  if (result == 0 && kind_ == Kind::read) {
    error_ =
        fmt::format("file: {} ends at byte {}, {} more expected", path, offset_, bytes_.size());
    return true;
  }
  // A write of nothing would loop for ever; POSIX lets a device answer so.
  const int code = result == 0 ? EIO : static_cast<int>(-result);
  error_ = fmt::format("file: cannot {} {} at byte {}: {}", kind_ == Kind::read ? "read" : "write",
                       path, offset_, std::generic_category().message(code));
  return true;
}

void transfer_now(StorageTransfer& transfer) {
  const auto call = [&transfer]() -> std::int64_t {
    const auto size = static_cast<std::size_t>(transfer.size());
    const ssize_t moved =
        transfer.kind() == StorageTransfer::Kind::read
            ? ::pread(transfer.descriptor(), transfer.data(), size, transfer.offset())
            : ::pwrite(transfer.descriptor(), transfer.data(), size, transfer.offset());
    return moved >= 0 ? moved : -errno;
  };
  while (!transfer.answered(call())) {
  }
}

}  // namespace nf
