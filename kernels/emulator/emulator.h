// The SIMT emulator as its users see it: what it checks, and what it saw of each kernel.
//
// A launch runs at once, on the calling thread: block after block, each GPU thread a fiber, a
// warp's lanes one after another to their next barrier, warps and blocks in an order drawn from a
// seed. Kernels are compiled with -fsanitize=thread, whose hooks tell the emulator of every access.
// One launch at a time: threads of the host wait for each other.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/kernel_error.h"

namespace nf::simt::emulator {

/// A fault of a kernel: a race, a divergent barrier, a deadlock, an access out of range. The
/// message names the kernel, the block and the thread. Memory may be half written.
class KernelFault : public KernelError {
 public:
  using KernelError::KernelError;
};

struct Options {
  /// Draws the order of blocks, warps and lanes.
  std::uint64_t seed = 1;
  /// Report two threads that touch the same address with no barrier between (of the block, or
  /// __syncwarp), one of them writing.
  bool races = true;
  /// Report global accesses outside add_memory's ranges. (Shared memory is always checked.)
  bool bounds = true;
  /// Count requests, sectors, bytes and bank conflicts of each kernel.
  bool behaviour = false;
  /// Run these blocks of each grid alone, each once, counted from the last where negative; empty:
  /// all.
  std::vector<std::int64_t> only{};
};

/// For all later launches of the process.
void set_options(const Options& options);
Options options();

/// Tells of memory that kernels may touch, and that they may no longer. Ranges may touch but not
/// overlap; an access may not span two.
void add_memory(const void* address, std::int64_t bytes);
void remove_memory(const void* address);

/// While there are any, launches of the calling thread do not run but are added to these calls;
/// null: they run. The calls are to be made on one thread, in order.
using Calls = std::vector<std::function<void()>>;
void record_to(Calls* calls);
Calls* recording();

/// What one kernel did with memory, in all launches since the last reset. A request is one
/// instruction of one warp; a sector 32 bytes.
struct Traffic {
  std::int64_t requests = 0;
  std::int64_t sectors = 0;      ///< distinct ones of each request, added up
  std::int64_t bytes_asked = 0;  ///< by the lanes
  std::int64_t bytes_moved() const { return 32 * sectors; }
  /// bytes_asked / bytes_moved; above 1 where lanes read the same addresses.
  double efficiency() const {
    return sectors == 0 ? 1.0
                        : static_cast<double>(bytes_asked) / static_cast<double>(32 * sectors);
  }
};

struct KernelBehaviour {
  std::string name;
  std::int64_t launches = 0;
  std::int64_t threads = 0;
  Traffic loads, stores, atomics;    ///< of global memory
  std::int64_t footprint_bytes = 0;  ///< 32 * distinct sectors of each launch, added up
  std::int64_t shared_requests = 0;
  /// Passes over the 32 banks that the shared requests took; as many as requests without conflicts.
  std::int64_t shared_passes = 0;
  std::int64_t worst_conflict =
      0;                          ///< most words of one bank in one pass's worth of lanes; 1: none
  std::int64_t barriers = 0;      ///< of all blocks together
  std::int64_t shared_bytes = 0;  ///< per block, static and dynamic, at most
};

/// In order of the first launch.
std::vector<KernelBehaviour> behaviour();
void reset_behaviour();

}  // namespace nf::simt::emulator
