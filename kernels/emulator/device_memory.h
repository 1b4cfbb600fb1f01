// The device's memory: the ranges of the host's memory that kernels may touch.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

namespace nf::simt::emulator {

/// Safe to use by several threads.
class DeviceMemory {
 public:
  /// Begin and end; {0, 0} for none.
  using Range = std::pair<std::uintptr_t, std::uintptr_t>;

  void add(std::uintptr_t begin, std::uintptr_t bytes);
  void remove(std::uintptr_t begin);
  /// The range around `address`.
  Range around(std::uintptr_t address);
  /// The last range that begins at or below `address`.
  Range below(std::uintptr_t address);

 private:
  std::mutex mutex_;
  std::map<std::uintptr_t, std::uintptr_t> ranges_;
};

/// The one that add_memory and remove_memory speak of.
DeviceMemory& device_memory();

}  // namespace nf::simt::emulator
