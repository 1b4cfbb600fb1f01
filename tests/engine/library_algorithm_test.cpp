#include "engine/backends/gpu/library_algorithm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace nf {
namespace {

constexpr bool kExact = true, kVaries = false;

TEST(LibraryAlgorithm, TheFastestThatIsDeterministicAndFitsIsTaken) {
  const std::vector<LibraryAlgorithm> offered{
      {900, kExact}, {10, kVaries}, {100, kExact}, {0, kExact}};
  EXPECT_EQ(choose_algorithm(offered, 1000), 0U);
  EXPECT_EQ(choose_algorithm(offered, 899), 2U);
  EXPECT_EQ(choose_algorithm(offered, 100), 2U);
  EXPECT_EQ(choose_algorithm(offered, 99), 3U);
}

TEST(LibraryAlgorithm, WhereNoDeterministicOneFitsAnotherIsTaken) {
  const std::vector<LibraryAlgorithm> offered{{50, kVaries}, {900, kExact}, {10, kVaries}};
  EXPECT_EQ(choose_algorithm(offered, 900), 1U);
  EXPECT_EQ(choose_algorithm(offered, 899), 0U);
  EXPECT_EQ(choose_algorithm(offered, 49), 2U);
}

TEST(LibraryAlgorithm, WhereNoneFitsTheSmallestIsTaken) {
  const std::vector<LibraryAlgorithm> offered{{500, kExact}, {300, kVaries}, {400, kExact}};
  EXPECT_EQ(choose_algorithm(offered, 299), 1U);
  EXPECT_EQ(choose_algorithm({}, 299), std::nullopt);
}

TEST(LibraryAlgorithm, ALowerCapNeverLeadsToALargerWorkspace) {
  const std::vector<LibraryAlgorithm> sizes{{7, kVaries}, {3, kExact}, {9, kExact}, {5, kVaries}};
  std::vector<std::size_t> order{0, 1, 2, 3};
  do {
    std::vector<LibraryAlgorithm> offered;
    for (const std::size_t i : order) offered.push_back(sizes[i]);
    std::int64_t last = 0;
    for (std::int64_t cap = 3; cap <= 10; ++cap) {
      const std::int64_t taken = offered[*choose_algorithm(offered, cap)].workspace;
      EXPECT_GE(taken, last) << "cap " << cap;
      last = taken;
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

}  // namespace
}  // namespace nf
