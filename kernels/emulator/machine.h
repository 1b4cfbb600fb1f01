// The machine that launches run on: all that a launch needs, kept from one to the next.
//
// launch.cpp runs grids and blocks, schedule.cpp warps and barriers, watch.cpp looks at accesses,
// words.cpp is what kernels call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/emulator/behaviour.h"
#include "kernels/emulator/emulator.h"
#include "kernels/emulator/fibers.h"
#include "kernels/emulator/limits.h"
#include "kernels/emulator/races.h"
#include "kernels/emulator/shared_memory.h"

namespace nf::simt::emulator {

enum class State : std::uint8_t { ready, at_barrier, at_warp, done };

/// What lanes of a warp meet in. Of the three, CUDA promises an order of memory of the first alone.
enum class Meeting : std::uint8_t { barrier, vote, shuffle };

struct Thread {
  State state = State::done;
  Index3 index{};
  // What it waits for and brings.
  Vote vote = Vote::none;
  int line = 0;
  bool predicate = false;
  unsigned mask = 0;
  Meeting meeting = Meeting::barrier;
  int source = 0;
  std::uint64_t value = 0;
  std::uint64_t result = 0;
};

class Machine {
 public:
  void run(const char* name, const Extent& grid, const Extent& block, std::int64_t shared_bytes,
           const Body& body);

  // Called by the current thread of the kernel.
  Thread& current() { return threads_[current_]; }
  const Index3& block_index() const { return block_index_; }
  const Extent& grid() const { return grid_; }
  const Extent& block() const { return block_; }
  int lane() const { return static_cast<int>(current_ % kWarp); }
  std::string who_is_running() const { return who(current_, block_index_); }
  void wait(State state) {
    current().state = state;
    fibers_.leave();
  }
  SharedMemory& shared() { return shared_; }
  void access(std::uintptr_t address, std::uint32_t bytes, AccessKind kind,
              const void* instruction);
  /// Ends the launch with what `describe` returns; never returns to the kernel. What lies on the
  /// thread's stack is not destroyed, so all strings are built and gone within `describe`.
  template <typename Describe>
  [[noreturn]] void fault(const Describe& describe) {
    fault_ = describe();
    fibers_.leave();
    std::abort();  // nobody comes back to a fiber that has faulted
  }

  Options options;
  std::vector<KernelBehaviour> seen;

 private:
  // launch.cpp
  static void run_body();
  void run_blocks(std::int64_t blocks);
  void run_block(std::int64_t block, std::mt19937_64& random);
  KernelBehaviour& total();
  [[noreturn]] void stop(const std::string& what);
  std::string who(std::size_t thread, const Index3& block) const {
    return "thread " + text(threads_[thread].index) + " of block " + text(block);
  }
  // schedule.cpp
  bool run_warp(std::size_t warp);
  bool release_warp(std::size_t warp);
  void serve(std::size_t begin, std::size_t end, unsigned present, unsigned predicates,
             Meeting meeting, unsigned mask);
  void start_epoch();
  bool release_block();
  [[noreturn]] void report_deadlock();
  // watch.cpp
  void check_poison(std::uintptr_t address, std::uint32_t bytes, AccessKind kind);
  void check_bounds(std::uintptr_t address, std::uint32_t bytes, AccessKind kind);
  void check_race(std::uintptr_t address, std::uint32_t bytes, AccessKind kind, bool shared);
  void count_accesses();

  const char* name_ = "";
  Extent grid_, block_;
  Body body_{};
  std::size_t count_ = 0;  // threads of a block
  std::vector<Thread> threads_{static_cast<std::size_t>(kMostThreads)};
  std::vector<WarpOrder> orders_{kMostWarps};
  std::size_t current_ = 0;
  Index3 block_index_{};
  std::uint32_t block_number_ = 0;
  std::uint32_t epoch_ = 0;
  std::uint64_t launches_ = 0;
  std::int64_t barriers_ = 0;
  std::string fault_;
  Fibers fibers_{static_cast<std::size_t>(kMostThreads), &Machine::run_body};
  SharedMemory shared_;

  // The launching thread's stack: parameters live there.
  std::uintptr_t caller_begin_ = 0, caller_end_ = 0;
  // Ranges of the device's memory that were last touched.
  std::array<std::pair<std::uintptr_t, std::uintptr_t>, 8> near_{};
  std::size_t next_near_ = 0;

  RaceDetector global_races_, shared_races_;
  BehaviourCounter counter_;
  std::vector<std::vector<Access>> lanes_{kWarp};  // of the warp that runs
};

inline Machine& machine() {
  static Machine instance;
  return instance;
}
/// Held by whoever launches or asks.
std::mutex& launch_mutex();

/// Set while this host thread runs a kernel: hooks of other threads, and of host code, do nothing.
extern constinit thread_local Machine* running;

/// While it lives, accesses are no kernel's: the emulator uses templates that kernels were compiled
/// with.
class Unwatched {
 public:
  Unwatched() : before_(std::exchange(running, nullptr)) {}
  ~Unwatched() { running = before_; }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;

 private:
  Machine* before_;
};

/// An access of the running kernel, before it happens; nothing where none runs.
inline void on_access(const void* address, std::size_t bytes, AccessKind kind,
                      const void* instruction) {
  if (running == nullptr) return;
  const Unwatched unwatched;
  machine().access(reinterpret_cast<std::uintptr_t>(address), static_cast<std::uint32_t>(bytes),
                   kind, instruction);
}

}  // namespace nf::simt::emulator
