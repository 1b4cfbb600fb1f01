#include "engine/memory/recycled.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>

namespace nf::test {
namespace {

// On both sides of each kind of border between sizes.
constexpr std::size_t kSizes[] = {0,
                                  1,
                                  15,
                                  16,
                                  17,
                                  1023,
                                  1024,
                                  1025,
                                  2047,
                                  2048,
                                  2049,
                                  std::size_t{1} << 20,
                                  (std::size_t{1} << 20) + 1};

TEST(Recycled, GivesAlignedBlocksThatDoNotOverlap) {
  constexpr int kRounds = 3;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::pair<std::byte*, std::size_t>> blocks;
    for (const std::size_t bytes : kSizes)
      for (int i = 0; i < 4; ++i) {
        auto* block = static_cast<std::byte*>(detail::take_block(bytes));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % __STDCPP_DEFAULT_NEW_ALIGNMENT__, 0U);
        std::memset(block, static_cast<int>(blocks.size()), bytes);
        blocks.emplace_back(block, bytes);
      }
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const auto [block, bytes] = blocks[i];
      EXPECT_EQ(std::count(block, block + bytes, static_cast<std::byte>(i)),
                static_cast<std::ptrdiff_t>(bytes));
      detail::give_block_back(block, bytes);
    }
  }
}

TEST(Recycled, GivesABlockAgainToTheNextOfItsSize) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer blocks really go";
#endif
  for (const std::size_t bytes : {std::size_t{24}, std::size_t{1500}}) {
    void* first = detail::take_block(bytes);
    detail::give_block_back(first, bytes);
    void* second = detail::take_block(bytes + 8);  // which is rounded up to the same
    EXPECT_EQ(second, first);
    detail::give_block_back(second, bytes + 8);
  }
}

struct Base : RecycledObject {
  virtual ~Base() = default;
};
struct Large : Base {
  std::array<double, 40> values{};
};

TEST(Recycled, TakesADerivedObjectBackByItsOwnSize) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer blocks really go";
#endif
  std::unique_ptr<Base> object = std::make_unique<Large>();
  const void* address = object.get();
  object.reset();
  void* next = detail::take_block(sizeof(Large));
  EXPECT_EQ(next, address);
  detail::give_block_back(next, sizeof(Large));
}

TEST(Recycled, HoldsTheContainersOfManyThreads) {
  const auto work = [](int thread) {
    for (int round = 0; round < 50; ++round) {
      RecycledVector<int> values;
      RecycledMap<int, int> ordered;
      RecycledHashMap<int, int> hashed;
      for (int i = 0; i < 300; ++i) {
        values.push_back(thread + i);
        ordered[i] = thread + i;
        hashed[i] = thread + i;
      }
      for (int i = 0; i < 300; ++i) {
        ASSERT_EQ(values[static_cast<std::size_t>(i)], thread + i);
        ASSERT_EQ(ordered.at(i), thread + i);
        ASSERT_EQ(hashed.at(i), thread + i);
      }
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work, 1000 * i);
}

TEST(Recycled, RefusesACountThatOverflows) {
  RecyclingAllocator<double> allocator;
  EXPECT_THROW(allocator.allocate(std::size_t{1} << 61), std::bad_array_new_length);
}

}  // namespace
}  // namespace nf::test
