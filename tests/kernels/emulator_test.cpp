// The emulator itself: small kernels with one fault each, and kernels whose memory behaviour is
// known. This file is compiled as kernels are, so that its own are watched.
#include "kernels/emulator/emulator.h"

#include <gmock/gmock.h>

#include <memory>
#include <new>
#include <numeric>

#include "tests/kernels/device.h"
#include "tests/kernels/sample_kernels.h"

namespace nf::simt::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// Restores the emulator's options, and starts with none of its memory.
class KernelsEmulator : public ::testing::Test {
 protected:
  void SetUp() override { before_ = emulator::options(); }
  void TearDown() override {
    emulator::set_options(before_);
    emulator::reset_behaviour();
  }
  /// What the one kernel launched by `launch` did.
  template <typename Launch>
  emulator::KernelBehaviour watch(const Launch& launch) {
    emulator::set_options({.behaviour = true});
    emulator::reset_behaviour();
    launch();
    const std::vector<emulator::KernelBehaviour> seen = emulator::behaviour();
    EXPECT_EQ(seen.size(), 1U);
    return seen.empty() ? emulator::KernelBehaviour{} : seen.front();
  }
  /// The message of the fault that `launch` ends with, under each of several orders.
  template <typename Launch>
  void expect_fault(const Launch& launch, const ::testing::Matcher<std::string>& message) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      emulator::set_options({.seed = seed});
      try {
        launch();
        ADD_FAILURE() << "no fault, seed " << seed;
      } catch (const KernelError& fault) {
        EXPECT_THAT(fault.what(), message) << "seed " << seed;
      }
    }
  }

 private:
  emulator::Options before_;
};

TEST_F(KernelsEmulator, RunsEachThreadOfAGridOnce) {
  DeviceArray<std::int32_t> out(3 * 2 * 4 * 5 * 3 * 2);
  launch("where_am_i", where_am_i, {3, 2, 4}, {5, 3, 2}, 0, kStream, out.data());
  std::vector<std::int32_t> expected(static_cast<std::size_t>(out.size()));
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(out.host(), expected);
}

TEST_F(KernelsEmulator, AddsABlockByShufflesAndSharedMemory) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    emulator::set_options({.seed = seed});
    std::vector<float> values(256);
    std::iota(values.begin(), values.end(), 1.0F);
    DeviceArray<float> x(values), y(1);
    launch("sum_by_shuffles", sum_by_shuffles, {1}, {256}, 0, kStream, x.data(), y.data());
    EXPECT_EQ(y.host()[0], 256 * 257 / 2);
  }
}

TEST_F(KernelsEmulator, VotesAndShufflesAsCudaDoes) {
  DeviceArray<std::int32_t> out(64 * 9);
  launch("vote", vote, {1}, {64}, 0, kStream, out.data());
  const std::vector<std::int32_t> rows = out.host();
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32, warp = i / 32;
    const std::vector<std::int32_t> expected{static_cast<std::int32_t>(0xaaaaaaaaU),
                                             warp == 1,
                                             warp == 0,
                                             lane == 31 ? i : i + 1,
                                             lane % 16 < 2 ? i : i - 2,
                                             i / 8 * 8 + 5,
                                             22,
                                             1,
                                             0};
    EXPECT_EQ(std::vector<std::int32_t>(rows.begin() + i * 9, rows.begin() + i * 9 + 9), expected)
        << i;
  }
}

TEST_F(KernelsEmulator, AtomicsOfAllThreadsCount) {
  DeviceArray<std::int32_t> counter(std::vector<std::int32_t>{0, 0});
  DeviceArray<float> sum(std::vector<float>{0});
  launch("count_up", count_up, {7}, {96}, 0, kStream, counter.data(), sum.data());
  EXPECT_EQ(counter.host(), (std::vector<std::int32_t>{7 * 96, 95}));
  EXPECT_EQ(sum.host()[0], 7 * 48.0F);
}

TEST_F(KernelsEmulator, GivesDynamicSharedMemory) {
  std::vector<float> values(64);
  std::iota(values.begin(), values.end(), 0.0F);
  DeviceArray<float> x(values);
  launch("reverse", reverse, {1}, {64}, 64 * 4, kStream, x.data(), 64);
  EXPECT_EQ(x.host(), std::vector<float>(values.rbegin(), values.rend()));
}

TEST_F(KernelsEmulator, RunsTheBlocksAskedForAlone) {
  emulator::set_options({.only = {-1, 0}});
  DeviceArray<std::int32_t> out(std::vector<std::int32_t>(5 * 2, -1));
  launch("where_am_i", where_am_i, {5}, {2}, 0, kStream, out.data());
  EXPECT_EQ(out.host(), (std::vector<std::int32_t>{0, 1, -1, -1, -1, -1, -1, -1, 8, 9}));
  // The first of one is the last: once.
  DeviceArray<std::int32_t> counter(std::vector<std::int32_t>{0, 0});
  DeviceArray<float> sum(std::vector<float>{0});
  launch("count_up", count_up, {1}, {96}, 0, kStream, counter.data(), sum.data());
  EXPECT_EQ(counter.host()[0], 96);
}

// --- Faults.

TEST_F(KernelsEmulator, ReportsARaceInSharedMemory) {
  DeviceArray<float> x(std::vector<float>(64, 1.0F));
  expect_fault([&] { launch("shift", shift_without_barrier, {1}, {64}, 0, kStream, x.data()); },
               AllOf(HasSubstr("shift: race: thread ("), HasSubstr("4 bytes of shared memory that"),
                     HasSubstr("with no barrier between")));
}

TEST_F(KernelsEmulator, OrdersAWarpByItsOwnBarrierOnly) {
  DeviceArray<float> x(std::vector<float>(32, 1.0F));
  launch("read_neighbour", read_neighbour, {1}, {32}, 0, kStream, x.data(), true);
  expect_fault(
      [&] { launch("read_neighbour", read_neighbour, {1}, {32}, 0, kStream, x.data(), false); },
      HasSubstr("race"));
}

TEST_F(KernelsEmulator, OnlyABarrierOfTheWarpOrdersItsMemory) {
  DeviceArray<float> x(std::vector<float>(33, 0.0F));
  const auto talk = [&](Between between, unsigned from) {
    launch("talk", talk_in_a_warp, {1}, {32}, 0, kStream, x.data(), between, from);
  };
  const auto race = [](int other) {
    return AllOf(HasSubstr("talk: race: thread (20, 0, 0) of block (0, 0, 0) reads 4 bytes of "
                           "global memory that thread (" +
                           std::to_string(other) + ", 0, 0) of block (0, 0, 0) wrote"),
                 HasSubstr("with no __syncwarp between"));
  };
  for (const unsigned from : {0U, 19U, 21U, 31U}) {
    talk(Between::barrier, from);
    EXPECT_EQ(x.host()[32], 1);
    for (const Between none : {Between::shuffle, Between::vote})
      expect_fault([&] { talk(none, from); }, race(static_cast<int>(from)));
  }
  // Its own is its own.
  talk(Between::shuffle, 20);
  // A barrier of some lanes orders those.
  talk(Between::half_barriers, 16);
  talk(Between::half_barriers, 31);
  expect_fault([&] { talk(Between::half_barriers, 15); }, race(15));
  talk(Between::chain, 0);
  talk(Between::chain, 21);
  expect_fault([&] { talk(Between::chain, 22); }, race(22));
}

TEST_F(KernelsEmulator, AtomicsOfAWarpRaceWithItsReadsAlone) {
  DeviceArray<float> counter(std::vector<float>{0}), y(1);
  const auto count = [&](bool wait) {
    launch("count", count_then_read, {1}, {32}, 0, kStream, counter.data(), y.data(), wait);
  };
  count(true);
  EXPECT_EQ(y.host()[0], 32);
  // The last to add was the one that reads.
  expect_fault([&] { count(false); },
               AllOf(HasSubstr("count: race: thread (31, 0, 0) of block (0, 0, 0) reads"),
                     HasSubstr("that thread (0, 0, 0) of block (0, 0, 0) wrote"),
                     HasSubstr("with no __syncwarp between")));
}

TEST_F(KernelsEmulator, ReportsARaceOfBlocks) {
  DeviceArray<float> x(8);
  launch("all_write", all_write, {8}, {1}, 0, kStream, x.data(), 1);
  expect_fault([&] { launch("all_write", all_write, {8}, {1}, 0, kStream, x.data(), 0); },
               AllOf(HasSubstr("all_write: race"), HasSubstr("bytes of global memory"),
                     HasSubstr("of block (")));
  // A launch is ordered behind the one before it.
  launch("all_write", all_write, {1}, {1}, 0, kStream, x.data(), 0);
}

TEST_F(KernelsEmulator, ReportsAWriteOfWhatOthersRead) {
  DeviceArray<float> x(std::vector<float>(8, 0.0F));
  // Block 0 writes the element that all others read.
  expect_fault(
      [&] { launch("read_then_write", read_then_write, {8}, {1}, 0, kStream, x.data(), x.data()); },
      HasSubstr("race"));
}

template <typename T>
class KernelsEmulatorInPlace : public KernelsEmulator {};
using ElementTypes = ::testing::Types<std::uint8_t, std::uint16_t, double>;
TYPED_TEST_SUITE(KernelsEmulatorInPlace, ElementTypes);

TYPED_TEST(KernelsEmulatorInPlace, NeighboursInOneWordAreNoRace) {
  DeviceArray<TypeParam> x(std::vector<TypeParam>(64, 1));
  launch("add_one", add_one<TypeParam>, {1}, {64}, 0, kStream, x.data(), 0);
  EXPECT_EQ(x.host(), std::vector<TypeParam>(64, 2));
  this->expect_fault(
      [&] { launch("add_one", add_one<TypeParam>, {1}, {64}, 0, kStream, x.data(), 1); },
      HasSubstr("race"));
}

TEST_F(KernelsEmulator, BytesOfOneWordAreNoRace) {
  DeviceArray<std::uint8_t> x(32);
  launch("bytes_side_by_side", bytes_side_by_side, {1}, {32}, 0, kStream, x.data());
  EXPECT_EQ(x.host(), std::vector<std::uint8_t>(32, 1));
}

TEST_F(KernelsEmulator, ReportsDivergentBarriers) {
  DeviceArray<float> x(64);
  expect_fault(
      [&] { launch("half_waits", half_waits, {1}, {64}, 0, kStream, x.data()); },
      AllOf(HasSubstr("half_waits: divergent barrier: thread (0, 0, 0) of block (0, 0, 0)"),
            HasSubstr("thread (32, 0, 0) of block (0, 0, 0) has ended")));
  expect_fault([&] { launch("waits_elsewhere", waits_elsewhere, {1}, {64}, 0, kStream, x.data()); },
               AllOf(HasSubstr("divergent barrier"), HasSubstr("at that in line ")));
}

TEST_F(KernelsEmulator, ReportsADeadlock) {
  DeviceArray<float> x(32);
  expect_fault(
      [&] { launch("lanes_miss", lanes_miss_each_other, {1}, {32}, 0, kStream, x.data()); },
      AllOf(HasSubstr("lanes_miss: deadlock"), HasSubstr("thread (3, 0, 0)"),
            HasSubstr("at __syncthreads")));
}

TEST_F(KernelsEmulator, ReportsWrongMasks) {
  DeviceArray<float> x(32);
  expect_fault([&] { launch("from_absent", shuffle_from_absent, {1}, {32}, 0, kStream, x.data()); },
               HasSubstr("shuffles from lane 20, which takes no part"));
  expect_fault([&] { launch("not_in_the_mask", not_in_the_mask, {1}, {32}, 0, kStream, x.data()); },
               HasSubstr("whose mask leaves it out"));
}

TEST_F(KernelsEmulator, ReportsSharedMemoryOutOfRange) {
  DeviceArray<float> x(32);
  emulator::set_options({.races = false});
  launch("beyond_shared", beyond_shared, {1}, {32}, 0, kStream, x.data(), 7);
  for (const int last : {8, -1})
    expect_fault(
        [&] { launch("beyond_shared", beyond_shared, {1}, {32}, 0, kStream, x.data(), last); },
        AllOf(HasSubstr("beyond_shared: "), HasSubstr("out of range in shared memory")));
}

TEST_F(KernelsEmulator, EnforcesTheLimitsOfALaunch) {
  DeviceArray<float> x(2048);
  expect_fault([&] { launch("too_much_shared", too_much_shared, {1}, {32}, 0, kStream, x.data()); },
               HasSubstr("at most 49152 bytes of shared memory"));
  expect_fault(
      [&] { launch("read_neighbour", read_neighbour, {1}, {32}, 50000, kStream, x.data(), true); },
      HasSubstr("at most 49152 bytes of shared memory"));
  expect_fault(
      [&] { launch("all_write", all_write, {1}, {1025}, 0, kStream, x.data(), 1); },
      HasSubstr("all_write<<<(1, 1, 1), (1025, 1, 1), 0>>>: a block has at most 1024 threads"));
  expect_fault([&] { launch("all_write", all_write, {0}, {32}, 0, kStream, x.data(), 1); },
               HasSubstr("at least 1 of each"));
  expect_fault(
      [&] {
        launch("all_write", all_write, {1, 65536}, {32}, 0, kStream, x.data(), 1);
      },
      HasSubstr("65535"));
  expect_fault([&] { launch("reverse", reverse, {1}, {32}, 0, kStream, x.data(), 32); },
               HasSubstr("dynamic shared memory"));
}

TEST_F(KernelsEmulator, ReportsAccessesOutsideOfMemory) {
  DeviceArray<float> x(32), y(4);
  launch("write_at", write_at, {1}, {1}, 0, kStream, x.data(), 31);
  expect_fault(
      [&] { launch("write_at", write_at, {1}, {1}, 0, kStream, x.data(), 32); },
      AllOf(HasSubstr("write_at: thread (0, 0, 0) of block (0, 0, 0) writes 4 bytes outside"),
            HasSubstr("4 bytes beyond the end of the nearest range of 128")));
  expect_fault([&] { launch("write_at", write_at, {1}, {1}, 0, kStream, x.data(), -1); },
               HasSubstr("outside of the device's memory"));
  expect_fault([&] { launch("vector_at", vector_at, {1}, {1}, 0, kStream, x.data(), y.data(), 1); },
               HasSubstr("no multiple of it"));
  // An argument may lie in memory that kernels may not touch: it is passed by value.
  const auto first = std::make_unique<std::int64_t>(0);
  launch("write_at", write_at, {1}, {1}, 0, kStream, x.data(), *first);
  // And goes on working after a fault.
  launch("vector_at", vector_at, {1}, {1}, 0, kStream, x.data(), y.data(), 28);
}

#if defined(__SANITIZE_ADDRESS__)
/// What a kernel does with memory that AddressSanitizer holds for poisoned, ranges left aside.
class KernelsEmulatorUnderAsan : public KernelsEmulator {
 protected:
  template <typename Launch>
  void expect_poisoned(const Launch& launch, const std::string& what, const char* described) {
    emulator::set_options({.bounds = false});
    ::testing::internal::CaptureStderr();
    std::string message = "no fault";
    try {
      launch();
    } catch (const emulator::KernelFault& fault) {
      message = fault.what();
    }
    EXPECT_THAT(message, AllOf(HasSubstr(what), HasSubstr("AddressSanitizer holds for poisoned")));
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(described));
  }
};

TEST_F(KernelsEmulatorUnderAsan, ReportsWhatLiesBesideABlockOfTheHeap) {
  std::vector<float> x(32, 1.0F), y(4);
  emulator::set_options({.bounds = false});
  launch("write_at", write_at, {1}, {1}, 0, kStream, x.data(), 31);
  for (const std::int64_t i : {32, -1})
    expect_poisoned([&] { launch("write_at", write_at, {1}, {1}, 0, kStream, x.data(), i); },
                    "write_at: thread (0, 0, 0) of block (0, 0, 0) writes 4 bytes",
                    "128-byte region");
  // The first three of a vector's four are in range.
  float* const odd = new (std::align_val_t{16}) float[31]();
  launch("vector_at", vector_at, {1}, {1}, 0, kStream, odd, y.data(), 24);
  expect_poisoned([&] { launch("vector_at", vector_at, {1}, {1}, 0, kStream, odd, y.data(), 28); },
                  "vector_at: thread (0, 0, 0) of block (0, 0, 0) reads 16 bytes",
                  "124-byte region");
  ::operator delete[](odd, std::align_val_t{16});
}

TEST_F(KernelsEmulatorUnderAsan, ReportsFreedMemoryThoughARangeHoldsIt) {
  auto memory = std::make_unique<float[]>(32);
  float* const x = memory.get();
  emulator::add_memory(x, 128);
  launch("write_at", write_at, {1}, {1}, 0, kStream, x, 5);
  memory.reset();
  expect_poisoned([&] { launch("write_at", write_at, {1}, {1}, 0, kStream, x, 5); },
                  "write_at: thread (0, 0, 0) of block (0, 0, 0) writes 4 bytes",
                  "freed by thread");
  emulator::remove_memory(x);
}

TEST_F(KernelsEmulatorUnderAsan, AFaultLeavesNothingBehindOnTheStacks) {
  DeviceArray<float> x(std::vector<float>(64, 1.0F)), y(1);
  for (int i = 0; i < 3; ++i) {
    // Of each kind, from within the emulator's own frames and others'.
    EXPECT_THROW(launch("shift", shift_without_barrier, {1}, {64}, 0, kStream, x.data()),
                 emulator::KernelFault);
    EXPECT_THROW(launch("half_waits", half_waits, {1}, {64}, 0, kStream, x.data()),
                 emulator::KernelFault);
    launch("sum_by_shuffles", sum_by_shuffles, {1}, {64}, 0, kStream, x.data(), y.data());
  }
}
#endif

// --- Memory behaviour.

TEST_F(KernelsEmulator, ACoalescedCopyMovesExactlyItsBytes) {
  DeviceArray<float> x(random_values<float>(4096, 1)), y(4096);
  const emulator::KernelBehaviour seen = watch(
      [&] { launch("copy", copy_with_stride, {16}, {256}, 0, kStream, x.data(), y.data(), 1); });
  EXPECT_EQ(y.host(), x.host());
  EXPECT_EQ(seen.launches, 1);
  EXPECT_EQ(seen.threads, 4096);
  for (const emulator::Traffic& traffic : {seen.loads, seen.stores}) {
    EXPECT_EQ(traffic.requests, 4096 / 32);
    EXPECT_EQ(traffic.bytes_asked, 4096 * 4);
    EXPECT_EQ(traffic.bytes_moved(), 4096 * 4);
    EXPECT_EQ(traffic.efficiency(), 1.0);
  }
  EXPECT_EQ(seen.footprint_bytes, 2 * 4096 * 4);
  EXPECT_EQ(seen.shared_requests, 0);
}

TEST_F(KernelsEmulator, AStrideOfTwoWastesHalf) {
  DeviceArray<float> x(random_values<float>(8192, 1)), y(4096);
  const emulator::KernelBehaviour seen = watch(
      [&] { launch("copy", copy_with_stride, {16}, {256}, 0, kStream, x.data(), y.data(), 2); });
  EXPECT_EQ(seen.loads.bytes_moved(), 2 * seen.loads.bytes_asked);
  EXPECT_EQ(seen.loads.efficiency(), 0.5);
  EXPECT_EQ(seen.stores.efficiency(), 1.0);
}

TEST_F(KernelsEmulator, AMisalignedCopyTouchesOneSectorMoreByRequest) {
  DeviceArray<float> x(random_values<float>(4096, 1), 1), y(4096);
  const emulator::KernelBehaviour seen = watch(
      [&] { launch("copy", copy_with_stride, {16}, {256}, 0, kStream, x.data(), y.data(), 1); });
  EXPECT_EQ(seen.loads.sectors, seen.stores.sectors / 4 * 5);
}

TEST_F(KernelsEmulator, AVectorIsOneRequest) {
  DeviceArray<float> x(random_values<float>(128, 1)), y(128);
  const emulator::KernelBehaviour seen =
      watch([&] { launch("vector_copy", vector_copy, {1}, {32}, 0, kStream, x.data(), y.data()); });
  EXPECT_EQ(y.host(), x.host());
  EXPECT_EQ(seen.loads.requests, 1);
  EXPECT_EQ(seen.loads.sectors, 16);
}

TEST_F(KernelsEmulator, CountsBankConflicts) {
  DeviceArray<float> y(32);
  for (const auto& [stride, ways] :
       {std::pair{1, 1}, {2, 2}, {3, 1}, {8, 8}, {31, 1}, {32, 32}, {0, 1}}) {
    const emulator::KernelBehaviour seen = watch([&] {
      emulator::set_options({.races = false, .behaviour = true});
      launch("shared", shared_with_stride, {1}, {32}, 0, kStream, y.data(), stride);
    });
    EXPECT_EQ(seen.shared_requests, 1) << stride;
    EXPECT_EQ(seen.shared_passes, ways) << stride;
    EXPECT_EQ(seen.worst_conflict, ways) << stride;
    EXPECT_EQ(seen.shared_bytes, 4096);
  }
  const emulator::KernelBehaviour seen =
      watch([&] { launch("shared", shared_vectors, {1}, {32}, 0, kStream, y.data()); });
  EXPECT_EQ(seen.shared_passes, 4) << "512 bytes, 128 at a time";
  EXPECT_EQ(seen.worst_conflict, 1);
}

TEST_F(KernelsEmulator, CountsRequestsOfDivergentLanes) {
  DeviceArray<float> x(random_values<float>(64, 1)), y(std::vector<float>(64, 0.0F));
  const emulator::KernelBehaviour seen = watch(
      [&] { launch("half_the_lanes", half_the_lanes, {1}, {64}, 0, kStream, x.data(), y.data()); });
  // Per warp: x once, then y in each of two rounds.
  EXPECT_EQ(seen.loads.requests, 2 * 3);
  EXPECT_EQ(seen.stores.requests, 2 * 3);
  EXPECT_EQ(seen.footprint_bytes, 2 * 64 * 4);
}

TEST_F(KernelsEmulator, CountsBarriers) {
  DeviceArray<float> x(std::vector<float>{0});
  const emulator::KernelBehaviour seen =
      watch([&] { launch("many_barriers", many_barriers, {1}, {32}, 0, kStream, x.data()); });
  EXPECT_EQ(seen.barriers, 20);
  EXPECT_EQ(x.host()[0], 20);
}

}  // namespace
}  // namespace nf::simt::test
