#include "kernels/emulator/device_memory.h"

#include "kernels/emulator/emulator.h"

namespace nf::simt::emulator {

void DeviceMemory::add(std::uintptr_t begin, std::uintptr_t bytes) {
  const std::lock_guard lock(mutex_);
  ranges_[begin] = begin + bytes;
}

void DeviceMemory::remove(std::uintptr_t begin) {
  const std::lock_guard lock(mutex_);
  ranges_.erase(begin);
}

DeviceMemory::Range DeviceMemory::around(std::uintptr_t address) {
  const Range range = below(address);
  return address < range.second ? range : Range{0, 0};
}

DeviceMemory::Range DeviceMemory::below(std::uintptr_t address) {
  const std::lock_guard lock(mutex_);
  auto next = ranges_.upper_bound(address);
  if (next == ranges_.begin()) return {0, 0};
  return *--next;
}

DeviceMemory& device_memory() {
  static DeviceMemory all;
  return all;
}

void add_memory(const void* address, std::int64_t bytes) {
  device_memory().add(reinterpret_cast<std::uintptr_t>(address),
                      static_cast<std::uintptr_t>(bytes));
}

void remove_memory(const void* address) {
  device_memory().remove(reinterpret_cast<std::uintptr_t>(address));
}

}  // namespace nf::simt::emulator
