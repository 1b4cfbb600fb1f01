// Host memory for a pool: addresses first, pages when they are touched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/memory/pool.h"

namespace nf::cpu {

class HostRange final : public AddressRange {
 public:
  /// Throws Error with the bytes and the system's reason when the addresses can't be had.
  explicit HostRange(std::int64_t bytes);
  ~HostRange() override;
  HostRange(const HostRange&) = delete;
  HostRange& operator=(const HostRange&) = delete;

  std::byte* base() const override { return base_; }
  std::int64_t bytes() const override { return bytes_; }
  /// Under AddressSanitizer only granted bytes may be touched; otherwise these do nothing.
  void mark_granted(std::int64_t offset, std::int64_t bytes) override;
  void mark_free(std::int64_t offset, std::int64_t bytes) override;

 private:
  void* mapping_ = nullptr;
  std::int64_t mapped_ = 0;
  std::byte* base_ = nullptr;
  std::int64_t bytes_ = 0;
  std::int64_t poisoned_ = 0;  // what lies above has never been granted
};

}  // namespace nf::cpu
