// What kernels call: the words of kernels/emulator/simt_emulator.h.
#include <cstring>

#include "kernels/emulator/machine.h"

namespace nf::simt::emulator {
namespace {

[[noreturn]] void misaligned(std::size_t bytes, const char* how) {
  const Unwatched unwatched;
  Machine& m = machine();
  m.fault([&] {
    return m.who_is_running() + ": a vector of " + std::to_string(bytes) + " bytes is " + how +
           " an address that is no multiple of it";
  });
}

std::uint64_t meet(Meeting meeting, unsigned mask, bool predicate, std::uint64_t value = 0,
                   int source = 0) {
  Machine& m = machine();
  if ((mask >> m.lane() & 1U) == 0) {
    const Unwatched unwatched;
    m.fault(
        [&] { return m.who_is_running() + " calls a warp operation whose mask leaves it out"; });
  }
  Thread& thread = m.current();
  thread.mask = mask;
  thread.predicate = predicate;
  thread.meeting = meeting;
  thread.value = value;
  thread.source = source;
  m.wait(State::at_warp);
  return thread.result;
}

}  // namespace

Index3 thread_index() noexcept { return machine().current().index; }
Index3 block_index() noexcept { return machine().block_index(); }
Index3 block_size() noexcept { return as_index(machine().block()); }
Index3 grid_size() noexcept { return as_index(machine().grid()); }

void* shared_variable(const void* tag, std::size_t bytes, std::size_t alignment) {
  const Unwatched unwatched;
  SharedMemory& shared = machine().shared();
  void* const variable = shared.variable(tag, bytes, alignment);
  if (variable == nullptr) machine().fault([&] { return shared.refusal(); });
  return variable;
}

void* dynamic_shared() {
  const Unwatched unwatched;
  void* const memory = machine().shared().dynamic();
  if (memory == nullptr)
    machine().fault([] { return "uses dynamic shared memory, but the launch asked for none"; });
  return memory;
}

void read_together(void* value, const void* address, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) misaligned(bytes, "read from");
  on_access(address, bytes, AccessKind::read, __builtin_return_address(0));
  std::memcpy(value, address, bytes);
}

void write_together(void* address, const void* value, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) misaligned(bytes, "written to");
  on_access(address, bytes, AccessKind::write, __builtin_return_address(0));
  std::memcpy(address, value, bytes);
}

void atomic_access(const void* address, std::size_t bytes) {
  on_access(address, bytes, AccessKind::atomic, __builtin_return_address(0));
}

int sync_threads(Vote vote, bool predicate, int line) {
  Thread& thread = machine().current();
  thread.vote = vote;
  thread.predicate = predicate;
  thread.line = line;
  machine().wait(State::at_barrier);
  return static_cast<int>(thread.result);
}

void sync_warp(unsigned mask) { meet(Meeting::barrier, mask, false); }

unsigned ballot(unsigned mask, bool predicate) {
  return static_cast<unsigned>(meet(Meeting::vote, mask, predicate));
}

bool all_lanes(unsigned mask, bool predicate) {
  const std::uint64_t result = meet(Meeting::vote, mask, predicate);
  return static_cast<unsigned>(result) == static_cast<unsigned>(result >> 32);
}

std::uint64_t exchange(unsigned mask, std::uint64_t value, int source) {
  return meet(Meeting::shuffle, mask, false, value, source);
}

int lane() { return machine().lane(); }

}  // namespace nf::simt::emulator
