// Buffers of equal size that files are read into and written from without the page cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

namespace nf {

/// One allocation, each buffer at a multiple of kDiskBlock. Not initialised.
class StagingBuffers {
 public:
  StagingBuffers() = default;
  /// Throws Error when the host has not the memory.
  StagingBuffers(std::int64_t count, std::int64_t bytes);

  std::span<std::byte> operator[](std::int64_t i) const {
    return {memory_.get() + i * stride_, static_cast<std::size_t>(bytes_)};
  }
  std::int64_t count() const { return count_; }
  /// Of all buffers.
  std::int64_t host_bytes() const { return count_ * stride_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::int64_t count_ = 0;
  std::int64_t bytes_ = 0;
  std::int64_t stride_ = 0;
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace nf
