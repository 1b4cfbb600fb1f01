#include "engine/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace nf {
namespace {

// The known answers that the authors of Philox publish with Random123 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  const Philox4 zero = philox(0, 0, 0);
  EXPECT_EQ(zero.v[0], 0x6627e8d5U);
  EXPECT_EQ(zero.v[1], 0xe169c58dU);
  EXPECT_EQ(zero.v[2], 0xbc57ac4cU);
  EXPECT_EQ(zero.v[3], 0x9b00dbd8U);
  const Philox4 ones = philox(~0ULL, ~0ULL, ~0ULL);
  EXPECT_EQ(ones.v[0], 0x408f276dU);
  EXPECT_EQ(ones.v[1], 0x41c83b0eU);
  EXPECT_EQ(ones.v[2], 0xa20bc7c6U);
  EXPECT_EQ(ones.v[3], 0x6d5451fdU);
}

TEST(RandomStream, StreamsAndKeysDiffer) {
  RandomStream a(random_key(7, Purpose::init), 0), b(random_key(7, Purpose::init), 1);
  RandomStream c(random_key(7, Purpose::shuffle), 0), d(random_key(8, Purpose::init), 0);
  const std::set<std::uint32_t> first{a.next_bits(), b.next_bits(), c.next_bits(), d.next_bits()};
  EXPECT_EQ(first.size(), 4U);
}

TEST(RandomStream, NormalHasMeanZeroAndVarianceOne) {
  RandomStream random(3);
  const int n = 100000;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double value = random.normal();
    sum += value;
    squares += value * value;
  }
  // Five standard errors: 1/sqrt(n) of the mean, sqrt(2/n) of the variance.
  EXPECT_NEAR(sum / n, 0.0, 5.0 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1.0, 5.0 * std::sqrt(2.0 / n));
}

TEST(RandomStream, PermutationHoldsEachIndexOnceAndDependsOnTheKey) {
  RandomStream a(1), again(1), other(2);
  const auto order = permutation(257, a);
  EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 257U);
  EXPECT_EQ(order, permutation(257, again));
  EXPECT_NE(order, permutation(257, other));
}

TEST(RandomStream, BelowIsUniform) {
  RandomStream random(5);
  int counts[3] = {};
  for (int i = 0; i < 30000; ++i) ++counts[random.below(3)];
  // Standard deviation of each count: sqrt(30000 * 1/3 * 2/3) = 81.6.
  for (const int count : counts) EXPECT_NEAR(count, 10000, 5 * 81.7);
}

}  // namespace
}  // namespace nf
