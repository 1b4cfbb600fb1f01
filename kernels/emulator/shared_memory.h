// Shared memory of the one block that runs: its variables, its limit, what lies outside of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/emulator/limits.h"

namespace nf::simt::emulator {

class SharedMemory {
 public:
  void start_launch(std::size_t dynamic_bytes);
  /// Variables are made anew, and hold NaN: who reads before it writes, sees it.
  void start_block();

  /// The block's variable that `tag` stands for; null where there is no room for it: refusal() then
  /// tells why.
  void* variable(const void* tag, std::size_t bytes, std::size_t alignment);
  /// Null where the launch asked for none.
  void* dynamic();
  std::string refusal() const;

  bool holds(std::uintptr_t address) const { return address - begin() < memory_.size(); }
  std::uintptr_t begin() const { return reinterpret_cast<std::uintptr_t>(memory_.data()); }
  std::uintptr_t end() const { return begin() + memory_.size(); }
  /// Whether an access lies in one variable.
  bool allows(std::uintptr_t address, std::uint32_t bytes) const {
    const std::uintptr_t offset = address - begin();
    for (const Variable& variable : variables_)
      if (offset >= variable.begin && offset + bytes <= variable.begin + variable.bytes)
        return true;
    return false;
  }
  /// ", beyond a variable of …" for an access that lies in none; empty where none is near.
  std::string nearest(std::uintptr_t address, std::uint32_t bytes) const;
  /// What a block asked for since start_launch, at most.
  std::int64_t most_bytes() const { return static_cast<std::int64_t>(most_asked_); }

 private:
  struct Variable {
    const void* tag;
    std::size_t begin, bytes;
  };
  // Around each variable, so that an access just beside one is caught.
  static constexpr std::size_t kGap = 64;

  alignas(256) std::array<std::byte, kSharedBytes + 64 * kGap> memory_{};
  std::vector<Variable> variables_;
  std::size_t dynamic_bytes_ = 0;
  std::size_t used_ = 0, asked_ = 0, most_asked_ = 0;
};

}  // namespace nf::simt::emulator
