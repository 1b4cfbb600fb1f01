// The account of what a run's caches take of host memory, and what the host has.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace nf {

/// Shared by caches that may take so much together. Any thread may use it.
class HostMemory {
 public:
  /// `limit` in bytes; 0: none, what is taken is only counted.
  explicit HostMemory(std::int64_t limit = 0) : limit_(limit) {}
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  std::int64_t limit() const { return limit_; }
  std::int64_t used() const;
  std::int64_t peak() const;
  /// Forgets the peak: from now on it is what is used.
  void reset_peak();
  /// What may still be taken; without a limit more than anyone can ask for.
  std::int64_t left() const;

 private:
  friend class HostCharge;
  std::int64_t limit_;
  mutable std::mutex mutex_;
  std::int64_t used_ = 0;
  std::int64_t peak_ = 0;
};

/// Bytes taken of an account until it is gone. Without an account nothing is counted.
class HostCharge {
 public:
  HostCharge() = default;
  /// Throws Error naming `what`, the bytes, what others use and the least limit that would do.
  HostCharge(std::shared_ptr<HostMemory> host, std::int64_t bytes, const std::string& what);
  HostCharge(HostCharge&& other) noexcept;
  HostCharge& operator=(HostCharge&& other) noexcept;
  ~HostCharge();

  std::int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<HostMemory> host_;
  std::int64_t bytes_ = 0;
};

/// Bytes that this process can still get before the system swaps or kills: what Linux estimates,
/// or what the control group leaves where that is less. The largest number where neither is told.
std::int64_t available_host_bytes();

/// From the texts of /proc/meminfo and of a control group's memory.max and memory.current; empty
/// where there is none. What can't be understood counts as not told.
std::int64_t available_bytes(const std::string& meminfo, const std::string& group_limit,
                             const std::string& group_used);

}  // namespace nf
