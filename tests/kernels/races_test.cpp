// The race detector against a list of all accesses and of what each thread knows of them.
#include "kernels/emulator/races.h"

#include <gtest/gtest.h>

#include <bitset>
#include <random>
#include <vector>

namespace nf::simt::emulator {
namespace {

constexpr std::size_t kBlocks = 2, kWarps = 2, kLanes = 4, kThreads = kBlocks * kWarps * kLanes;
constexpr std::size_t kMostAccesses = 64;

/// Whose accesses are ordered before whose, by the definition.
class Reference {
 public:
  /// True where the access is in a race with an earlier one.
  bool access(std::size_t thread, std::uintptr_t address, AccessKind kind) {
    bool race = false;
    for (std::size_t i = 0; i < all_.size(); ++i)
      race |= all_[i].address == address && !known_[thread].test(i) &&
              (all_[i].kind != AccessKind::read || kind != AccessKind::read) &&
              !(all_[i].kind == AccessKind::atomic && kind == AccessKind::atomic);
    known_[thread].set(all_.size());
    all_.push_back({address, kind});
    return race;
  }
  void meet(const std::vector<std::size_t>& threads) {
    std::bitset<kMostAccesses> together;
    for (const std::size_t thread : threads) together |= known_[thread];
    for (const std::size_t thread : threads) known_[thread] = together;
  }

 private:
  struct One {
    std::uintptr_t address;
    AccessKind kind;
  };
  std::vector<One> all_;
  std::array<std::bitset<kMostAccesses>, kThreads> known_;
};

struct Seen {
  int both = 0, neither = 0, missed = 0, invented = 0;
};

/// Random programs up to their first race.
Seen compare(bool partial_masks, std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) { return std::size_t{random()} % n; };
  Seen seen;
  RaceDetector detector;
  for (int program = 0; program < 20000; ++program) {
    detector.start();
    Reference reference;
    std::array<WarpOrder, kBlocks * kWarps> orders;
    std::array<std::uint32_t, kBlocks> epochs{};
    const std::size_t addresses = 1 + below(64), writes = below(6), meetings = 1 + below(3);
    const std::size_t steps = 1 + below(kMostAccesses);
    bool raced = false, reported = false;
    for (std::size_t step = 0; step < steps && !raced && !reported; ++step) {
      const std::size_t warp = below(orders.size()), block = warp / kWarps;
      if (below(4) < meetings) {
        std::vector<std::size_t> threads;
        std::uint32_t mask = 0;
        for (std::size_t lane = 0; lane < kLanes; ++lane)
          if (!partial_masks || below(2) == 0) {
            threads.push_back(warp * kLanes + lane);
            mask |= 1U << lane;
          }
        orders[warp].meet(mask);
        reference.meet(threads);
      }
      if (below(8) == 0) {
        ++epochs[block];
        std::vector<std::size_t> threads;
        for (std::size_t i = 0; i < kWarps * kLanes; ++i)
          threads.push_back(block * kWarps * kLanes + i);
        for (std::size_t i = 0; i < kWarps; ++i) orders[block * kWarps + i].start();
        reference.meet(threads);
      }
      const std::size_t lane = below(kLanes);
      const std::uintptr_t address = 4096 + 4 * below(addresses);
      const AccessKind kind = below(8) >= writes ? AccessKind::read
                              : below(2) == 0    ? AccessKind::atomic
                                                 : AccessKind::write;
      raced = reference.access(warp * kLanes + lane, address, kind);
      RaceDetector::Conflict conflict;
      reported = detector.note(address, 4, kind,
                               {.block = static_cast<std::uint32_t>(block),
                                .epoch = epochs[block],
                                .thread = static_cast<std::uint32_t>(warp % kWarps * 32 + lane),
                                .order = orders[warp]},
                               conflict);
    }
    ++(raced ? (reported ? seen.both : seen.missed) : (reported ? seen.invented : seen.neither));
  }
  return seen;
}

TEST(KernelsRaces, AreFoundWhereTheyAreAndNowhereElse) {
  const Seen seen = compare(false, 1);
  EXPECT_EQ(seen.missed, 0);
  EXPECT_EQ(seen.invented, 0);
  EXPECT_GT(seen.both, 1000);
  EXPECT_GT(seen.neither, 100);
}

TEST(KernelsRaces, OfPartialMasksNoneIsInvented) {
  const Seen seen = compare(true, 2);
  EXPECT_EQ(seen.invented, 0);
  EXPECT_LT(seen.missed, seen.both / 100);
  EXPECT_GT(seen.both, 1000);
  EXPECT_GT(seen.neither, 100);
}

}  // namespace
}  // namespace nf::simt::emulator
