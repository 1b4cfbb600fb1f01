// Accesses of kernels: those out of range or in a race end the launch, the others are counted.
#include <sstream>

#include "kernels/emulator/device_memory.h"
#include "kernels/emulator/machine.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace nf::simt::emulator {
namespace {

std::string does(AccessKind kind, std::uint32_t bytes) {
  return (kind == AccessKind::read ? " reads " : " writes ") + std::to_string(bytes) + " bytes";
}

std::string outside(std::uintptr_t address, std::uint32_t bytes) {
  std::ostringstream out;
  out << " outside of the device's memory at 0x" << std::hex << address << std::dec;
  const DeviceMemory::Range near = device_memory().below(address);
  if (near.second != 0)
    out << ", " << static_cast<std::int64_t>(address + bytes - near.second)
        << " bytes beyond the end of the nearest range of " << near.second - near.first;
  return out.str();
}

}  // namespace

void Machine::access(std::uintptr_t address, std::uint32_t bytes, AccessKind kind,
                     const void* instruction) {
  if (fibers_.own(address)) return;
  if (address >= caller_begin_ && address < caller_end_) return;
  const bool is_shared = shared_.holds(address);
  if (is_shared) {
    if (!shared_.allows(address, bytes))
      fault([&] {
        return who_is_running() + does(kind, bytes) + " out of range in shared memory" +
               shared_.nearest(address, bytes);
      });
  } else {
    if (options.bounds) check_bounds(address, bytes, kind);
    check_poison(address, bytes, kind);
  }
  if (options.races) check_race(address, bytes, kind, is_shared);
  if (options.behaviour) lanes_[current_ % kWarp].push_back({instruction, address, bytes, kind});
}

void Machine::check_bounds(std::uintptr_t address, std::uint32_t bytes, AccessKind kind) {
  for (const auto& [begin, end] : near_)
    if (address >= begin && address + bytes <= end) return;
  const DeviceMemory::Range range = device_memory().around(address);
  if (range.second == 0 || address + bytes > range.second)
    fault([&] { return who_is_running() + does(kind, bytes) + outside(address, bytes); });
  near_[next_near_++ % near_.size()] = range;
}

#if defined(__SANITIZE_ADDRESS__)
// Memory that a range holds, or that no range is asked about, and that nobody owns.
void Machine::check_poison(std::uintptr_t address, std::uint32_t bytes, AccessKind kind) {
  void* const poisoned = __asan_region_is_poisoned(reinterpret_cast<void*>(address), bytes);
  if (poisoned == nullptr) return;
  __asan_describe_address(poisoned);
  fault([&] {
    std::ostringstream out;
    out << who_is_running() << does(kind, bytes)
        << " that AddressSanitizer holds for poisoned at 0x" << std::hex << address;
    return out.str();
  });
}
#else
void Machine::check_poison(std::uintptr_t, std::uint32_t, AccessKind) {}
#endif

void Machine::check_race(std::uintptr_t address, std::uint32_t bytes, AccessKind kind,
                         bool shared) {
  const Moment now{.block = block_number_,
                   .epoch = epoch_,
                   .thread = static_cast<std::uint32_t>(current_),
                   .order = orders_[current_ / kWarp]};
  RaceDetector::Conflict conflict;
  if (!(shared ? shared_races_ : global_races_).note(address, bytes, kind, now, conflict)) return;
  fault([&] {
    const bool known = conflict.block != block_number_ || conflict.thread != current_;
    return "race: " + who_is_running() + does(kind, bytes) + " of " +
           (shared ? "shared" : "global") + " memory that " +
           (known ? who(conflict.thread, index_in(conflict.block, grid_)) : "other threads too") +
           (conflict.wrote ? " wrote" : " read") +
           (conflict.same_warp
                ? ", with no __syncwarp between (shuffles and votes do not order memory)"
                : ", with no barrier between");
  });
}

// What a warp's lanes did since they last came together.
void Machine::count_accesses() {
  if (!options.behaviour) return;
  counter_.count(lanes_, shared_.begin(), shared_.end(), total());
  for (std::vector<Access>& lane : lanes_) lane.clear();
}

}  // namespace nf::simt::emulator
