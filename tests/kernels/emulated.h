// What kernel tests ask of the emulator alone.
#pragma once

#include <sys/mman.h>

#include <cstdint>

#include "kernels/emulator/emulator.h"

namespace nf::simt::test {

/// Options of the emulator while it lives.
class WithOptions {
 public:
  explicit WithOptions(const emulator::Options& options) { emulator::set_options(options); }
  ~WithOptions() { emulator::set_options(before_); }
  WithOptions(const WithOptions&) = delete;
  WithOptions& operator=(const WithOptions&) = delete;

 private:
  emulator::Options before_ = emulator::options();
};

/// Zeros, of which only the pages that are touched take memory.
template <typename T>
class HugeArray {
 public:
  explicit HugeArray(std::int64_t size) : bytes_(size * static_cast<std::int64_t>(sizeof(T))) {
    memory_ = mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!failed()) emulator::add_memory(memory_, bytes_);
  }
  ~HugeArray() {
    if (failed()) return;
    emulator::remove_memory(memory_);
    munmap(memory_, static_cast<std::size_t>(bytes_));
  }
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;
  bool failed() const { return memory_ == MAP_FAILED; }
  T* data() { return static_cast<T*>(memory_); }

 private:
  std::int64_t bytes_;
  void* memory_;
};

}  // namespace nf::simt::test
