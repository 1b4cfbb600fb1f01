// One access of a kernel's thread to memory.
#pragma once

#include <cstdint>

namespace nf::simt::emulator {

enum class AccessKind : std::uint8_t { read, write, atomic };

struct Access {
  const void* instruction;
  std::uintptr_t address;
  std::uint32_t bytes;
  AccessKind kind;
};

}  // namespace nf::simt::emulator
