// The memory behaviour of one launch: requests, sectors, bank conflicts.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "kernels/emulator/access.h"
#include "kernels/emulator/emulator.h"

namespace nf::simt::emulator {

/// Puts the accesses of a warp's lanes together into requests and counts them.
class BehaviourCounter {
 public:
  void start_launch() { footprint_.clear(); }
  /// The accesses of each lane between two points where the warp comes together.
  void count(const std::vector<std::vector<Access>>& lanes, std::uintptr_t shared_begin,
             std::uintptr_t shared_end, KernelBehaviour& total);
  /// 32 * distinct sectors of global memory since start_launch.
  std::int64_t footprint_bytes() const;

 private:
  struct Member {
    int lane;
    const Access* access;
  };
  void count_request(const std::vector<Member>& members, bool shared, KernelBehaviour& total);

  std::unordered_map<std::uintptr_t, std::array<std::uint64_t, 2>> footprint_;  // 4 KiB pages
  std::vector<Member> members_;
};

}  // namespace nf::simt::emulator
