#include "kernels/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/normal.h"
#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test {
namespace {

constexpr std::uint64_t kKey = 0xfedcba9876543210ULL;
constexpr std::int64_t kSizes[] = {0, 1, 3, 4, 7, 8, 9, 255, 1024, 1027, 5003};

template <typename T>
class KernelsRandom : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsRandom, StorageTypes);

template <typename T>
std::vector<float> as_floats(const std::vector<T>& values) {
  std::vector<float> result;
  for (const T value : values) result.push_back(to_host_float(value));
  return result;
}

TYPED_TEST(KernelsRandom, DropoutKeepsWhatTheGeneratorSays) {
  using T = TypeParam;
  for (const std::int64_t n : kSizes)
    for (const std::int64_t offset : {0, 1})
      for (const double p : {0.0, 0.1, 0.5, 0.9})
        for (const bool accumulate : {false, true}) {
          const std::vector<T> in = random_values<T>(n, 1), before = random_values<T>(n, 2);
          DeviceArray<T> x(in, offset), y(before, 0);
          dropout(kStream, p, kKey, x.data(), y.data(), n, accumulate);
          std::vector<float> expected;
          const auto scale = static_cast<float>(1.0 / (1.0 - p));
          for (std::int64_t i = 0; i < n; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const Philox4 draw = philox(kKey, static_cast<std::uint64_t>(i / 4), 0);
            float value = static_cast<double>(uniform01(draw.v[i % 4])) >= p
                              ? to_host_float(in[at]) * scale
                              : 0.0F;
            if (accumulate) value += to_host_float(before[at]);
            expected.push_back(to_host_float(from_host_float<T>(value)));
          }
          const std::vector<float> actual = as_floats(y.host());
          for (std::size_t i = 0; i < expected.size(); ++i)
            // A GPU fuses the product and the sum: one rounding less.
            ASSERT_NEAR(actual[i], expected[i],
                        accumulate ? 2 * kRounding<T> * std::abs(expected[i]) + 0x1p-22 : 0)
                << n << " " << offset << " " << p << " element " << i;
        }
}

TYPED_TEST(KernelsRandom, DropoutInPlace) {
  using T = TypeParam;
  DeviceArray<T> x(std::vector<T>(1001, from_host_float<T>(1))), y(1001);
  dropout(kStream, 0.25, kKey, x.data(), y.data(), 1001, false);
  dropout(kStream, 0.25, kKey, x.data(), x.data(), 1001, false);
  EXPECT_EQ(as_floats(x.host()), as_floats(y.host()));
}

TYPED_TEST(KernelsRandom, FillsAreTheHostsBits) {
  using T = TypeParam;
  for (const std::int64_t n : kSizes)
    for (const std::int64_t offset : {0, 1, 3}) {
      DeviceArray<T> u(n, offset), z(n, offset);
      fill_uniform(kStream, kKey, 5, u.data(), n, -2.0F, 3.0F);
      fill_normal(kStream, kKey, 6, z.data(), n, 0.5F, 2.0F);
      std::vector<float> uniform, normal;
      for (std::int64_t i = 0; i < n; ++i) {
        const auto draw = static_cast<std::uint64_t>(i / 4);
        const float number = uniform01(philox(kKey, draw, 5).v[i % 4]);
        uniform.push_back(to_host_float(from_host_float<T>(std::fma(number, 5.0F, -2.0F))));
        const float gaussian = normal4(philox(kKey, draw, 6)).v[i % 4];
        normal.push_back(to_host_float(from_host_float<T>(std::fma(gaussian, 2.0F, 0.5F))));
      }
      EXPECT_EQ(as_floats(u.host()), uniform) << n << " " << offset;
      EXPECT_EQ(as_floats(z.host()), normal) << n << " " << offset;
    }
}

// A few units in the last place of what the formula gives in double.
TEST(KernelsNormal, IsBoxMullerToAFewUnits) {
  double worst = 0;
  for (std::uint64_t i = 0; i < 200000; ++i) {
    const Philox4 bits = philox(kKey, i, 0);
    const Normal4 four = normal4(bits);
    for (int pair = 0; pair < 2; ++pair) {
      const double u = 1.0 - static_cast<double>(uniform01(bits.v[2 * pair]));
      const double radius = std::sqrt(-2 * std::log(u));
      const double angle =
          2 * std::numbers::pi * static_cast<double>(uniform01(bits.v[2 * pair + 1]));
      const double exact[] = {radius * std::cos(angle), radius * std::sin(angle)};
      for (int k = 0; k < 2; ++k) {
        const double error = std::abs(static_cast<double>(four.v[2 * pair + k]) - exact[k]);
        worst = std::max(worst, error / std::max(radius, 1e-3));
      }
    }
  }
  EXPECT_LE(worst, 4 * 0x1p-23);
}

TEST(KernelsNormal, EndsOfTheRange) {
  // All bits set: the smallest 1 - u, the largest radius. None set: log(1) = 0.
  const Normal4 large = normal4({{0xffffffffU, 0, 0xffffffffU, 0x40000000U}});
  EXPECT_NEAR(static_cast<double>(large.v[0]), std::sqrt(48 * std::numbers::ln2), 1e-6);
  EXPECT_EQ(large.v[1], 0);
  EXPECT_NEAR(static_cast<double>(large.v[3]), std::sqrt(48 * std::numbers::ln2), 1e-6);
  EXPECT_EQ(normal4({{0, 0, 0, 0}}).v[0], 0);
}

TEST(KernelsNormal, MomentsAndTails) {
  constexpr int kCount = 1 << 20;
  double sum = 0, squares = 0, cubes = 0, fourth = 0;
  int beyond2 = 0;
  for (int i = 0; i < kCount / 4; ++i)
    for (const float z : normal4(philox(kKey, static_cast<std::uint64_t>(i), 3)).v) {
      const double v = static_cast<double>(z);
      sum += v;
      squares += v * v;
      cubes += v * v * v;
      fourth += v * v * v * v;
      beyond2 += std::abs(v) > 2;
    }
  // Six standard errors of each estimate.
  const double error = 6 / std::sqrt(double{kCount});
  EXPECT_NEAR(sum / kCount, 0, error);
  EXPECT_NEAR(squares / kCount, 1, error * std::sqrt(2.0));
  EXPECT_NEAR(cubes / kCount, 0, error * std::sqrt(15.0));
  EXPECT_NEAR(fourth / kCount, 3, error * std::sqrt(96.0));
  EXPECT_NEAR(static_cast<double>(beyond2) / kCount, std::erfc(std::numbers::sqrt2), error * 0.21);
}

}  // namespace
}  // namespace nf::NF_TARGET::test
