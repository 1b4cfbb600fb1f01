#include "kernels/emulator/shared_memory.h"

#include <algorithm>
#include <cstring>

namespace nf::simt::emulator {
namespace {

std::size_t aligned(std::size_t offset, std::size_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

}  // namespace

void SharedMemory::start_launch(std::size_t dynamic_bytes) {
  dynamic_bytes_ = dynamic_bytes;
  most_asked_ = dynamic_bytes;
}

void SharedMemory::start_block() {
  variables_.clear();
  used_ = kGap;
  asked_ = 0;
  std::memset(memory_.data(), 0xff, memory_.size());
  // The first of all variables.
  if (dynamic_bytes_ > 0) variable(nullptr, dynamic_bytes_, 256);
}

void* SharedMemory::variable(const void* tag, std::size_t bytes, std::size_t alignment) {
  for (const Variable& known : variables_)
    if (known.tag == tag) return memory_.data() + known.begin;
  asked_ = aligned(asked_, alignment) + bytes;
  used_ = aligned(used_, alignment);
  if (asked_ > kSharedBytes || used_ + bytes + kGap > memory_.size()) return nullptr;
  const std::size_t begin = used_;
  variables_.push_back({tag, begin, bytes});
  used_ += bytes + kGap;
  most_asked_ = std::max(most_asked_, asked_);
  return memory_.data() + begin;
}

void* SharedMemory::dynamic() {
  return dynamic_bytes_ == 0 ? nullptr : memory_.data() + variables_.front().begin;
}

std::string SharedMemory::refusal() const {
  return "a block has at most " + std::to_string(kSharedBytes) + " bytes of shared memory, " +
         std::to_string(asked_) + " are asked for";
}

std::string SharedMemory::nearest(std::uintptr_t address, std::uint32_t bytes) const {
  const std::uintptr_t offset = address - begin();
  std::string nearest;
  for (const Variable& variable : variables_)
    if (offset + bytes > variable.begin)
      nearest = ", beyond a variable of " + std::to_string(variable.bytes) + " bytes, at byte " +
                std::to_string(offset - variable.begin);
  return nearest;
}

}  // namespace nf::simt::emulator
