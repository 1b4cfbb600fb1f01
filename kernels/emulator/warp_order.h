// Which accesses of a warp's lanes are ordered before which: __syncwarp orders those of the lanes
// that take part, and nothing else does within a warp.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace nf::simt::emulator {

/// Vector clocks of one warp between two barriers of its block. The time is the number of meetings.
class WarpOrder {
 public:
  /// A barrier of the block: what was before needs no clock any more.
  void start() { now_ = 0; }
  std::uint32_t now() const { return now_; }
  /// The lanes (as bits) meet in a __syncwarp: each knows what any of them knew.
  void meet(std::uint32_t lanes) {
    if (now_++ == 0) known_ = {};
    Clock together{};
    for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      const Clock& one = known_[static_cast<std::size_t>(std::countr_zero(rest))];
      for (std::size_t i = 0; i < together.size(); ++i) together[i] = std::max(together[i], one[i]);
    }
    for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1)
      together[static_cast<std::size_t>(std::countr_zero(rest))] = now_;
    for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1)
      known_[static_cast<std::size_t>(std::countr_zero(rest))] = together;
  }
  /// Those of `lanes` whose accesses at `time` are not ordered before what `lane` does now.
  std::uint32_t unordered(std::uint32_t lanes, std::uint32_t time, std::uint32_t lane) const {
    lanes &= ~(1U << lane);
    if (now_ == 0) return lanes;
    std::uint32_t left = 0;
    for (; lanes != 0; lanes &= lanes - 1) {
      const auto other = static_cast<std::size_t>(std::countr_zero(lanes));
      if (time >= known_[lane][other]) left |= 1U << other;
    }
    return left;
  }

 private:
  // Of each lane, since when its accesses are unknown.
  using Clock = std::array<std::uint32_t, 32>;

  std::uint32_t now_ = 0;
  std::array<Clock, 32> known_{};
};

}  // namespace nf::simt::emulator
