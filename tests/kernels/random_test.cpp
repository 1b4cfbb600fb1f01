#include "kernels/random.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "kernels/normal.h"
#include "tests/kernels/device.h"
#if !defined(NF_TESTS_ON_GPU)
#include "tests/kernels/emulated.h"
#endif

namespace nf::NF_TARGET::test {
namespace {

#if !defined(NF_TESTS_ON_GPU)
using simt::test::HugeArray;
using simt::test::WithOptions;
#endif

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

/// Of dropout, element i. The product is rounded before the sum, whatever compiled this.
template <typename T>
float dropped_out(double p, std::int64_t i, T in, T before, bool accumulate) {
  const Philox4 draw = philox(kKey, static_cast<std::uint64_t>(i / 4), 0);
  if (static_cast<double>(uniform01(draw.v[i % 4])) < p)
    return accumulate ? to_host_float(before) : 0.0F;
  volatile float kept = to_host_float(in) * static_cast<float>(1.0 / (1.0 - p));
  const float value = accumulate ? to_host_float(before) + kept : kept;
  return to_host_float(from_host_float<T>(value));
}

TYPED_TEST(KernelsRandom, DropoutIsTheHostsBits) {
  using T = TypeParam;
  const std::pair<std::int64_t, std::int64_t> offsets[] = {{0, 0}, {1, 0}, {0, 1}, {3, 3}};
  for (const std::int64_t n : kSizes)
    for (const auto& [x_offset, y_offset] : offsets)
      for (const double p : {0.0, 0.1, 0.5, 0.9, 1 - 0x1p-30})
        for (const bool accumulate : {false, true}) {
          const std::vector<T> in = random_values<T>(n, 1), before = random_values<T>(n, 2);
          DeviceArray<T> x(in, x_offset), y(before, y_offset);
          dropout(kStream, p, kKey, x.data(), y.data(), n, accumulate);
          std::vector<float> expected;
          for (std::int64_t i = 0; i < n; ++i) {
            const auto at = static_cast<std::size_t>(i);
            expected.push_back(dropped_out(p, i, in[at], before[at], accumulate));
          }
          EXPECT_EQ(as_floats(y.host()), expected)
              << n << " " << x_offset << " " << y_offset << " " << p << " " << accumulate;
        }
}

TYPED_TEST(KernelsRandom, DropoutDrawsAnewWhenTheSeedInMemoryChanges) {
  using T = TypeParam;
  constexpr std::int64_t n = 1003;
  DeviceArray<T> x(random_values<T>(n, 1)), by_value(n), from_memory(n);
  DeviceArray<std::uint64_t> seed(1);
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{0x123456789abcdef0}}) {
    *seed.data() = value;
    const PhiloxKey key(seed.data(), 11, 5);
    const Philox4 bits = philox(value, 11, 5);
    dropout(kStream, 0.5, std::uint64_t{bits.v[1]} << 32 | bits.v[0], x.data(), by_value.data(), n,
            false);
    dropout(kStream, 0.5, key, x.data(), from_memory.data(), n, false);
    EXPECT_EQ(as_floats(from_memory.host()), as_floats(by_value.host()));
  }
}

// What is dropped leaves no trace, what is kept stays what it is.
TYPED_TEST(KernelsRandom, DropoutOfInfinityAndNan) {
  using T = TypeParam;
  constexpr std::int64_t n = 4001;
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float special : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
    DeviceArray<T> x(std::vector<T>(n, from_host_float<T>(special))), y(n);
    dropout(kStream, 0.5, kKey, x.data(), y.data(), n, false);
    const std::vector<float> actual = as_floats(y.host());
    for (std::int64_t i = 0; i < n; ++i) {
      const Philox4 draw = philox(kKey, static_cast<std::uint64_t>(i / 4), 0);
      const float value = actual[static_cast<std::size_t>(i)];
      if (uniform01(draw.v[i % 4]) < 0.5F)
        ASSERT_EQ(value, 0) << "element " << i;
      else if (std::isnan(special))
        ASSERT_TRUE(std::isnan(value)) << "element " << i;
      else
        ASSERT_EQ(value, special) << "element " << i;
    }
  }
}

TYPED_TEST(KernelsRandom, DropoutInPlace) {
  using T = TypeParam;
  DeviceArray<T> x(std::vector<T>(1001, from_host_float<T>(1))), y(1001);
  dropout(kStream, 0.25, kKey, x.data(), y.data(), 1001, false);
  dropout(kStream, 0.25, kKey, x.data(), x.data(), 1001, false);
  EXPECT_EQ(as_floats(x.host()), as_floats(y.host()));
}

// An element's own number as p keeps it, the next larger p drops it: in vectors and behind them.
TYPED_TEST(KernelsRandom, DropoutKeepsFromPOn) {
  using T = TypeParam;
  constexpr std::int64_t n = 11;
  DeviceArray<T> x(std::vector<T>(n, from_host_float<T>(1))), y(n);
  for (std::int64_t i = 0; i < n; ++i) {
    const Philox4 draw = philox(kKey, static_cast<std::uint64_t>(i / 4), 0);
    const double u = static_cast<double>(uniform01(draw.v[i % 4]));
    dropout(kStream, u, kKey, x.data(), y.data(), n, false);
    EXPECT_NE(as_floats(y.host())[static_cast<std::size_t>(i)], 0) << "element " << i;
    dropout(kStream, std::nextafter(u, 1.0), kKey, x.data(), y.data(), n, false);
    EXPECT_EQ(as_floats(y.host())[static_cast<std::size_t>(i)], 0) << "element " << i;
  }
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

// Counters of 64 bits, and blocks beyond 2^16: what comes behind must be numbers of its own.
TEST(KernelsRandomLimits, MoreThanTwoToTheSixteenthBlocks) {
  constexpr std::int64_t kBlock = 256;  // elements, when they go one by one
  constexpr std::int64_t n = 65537 * kBlock + 3;
  DeviceArray<bf16> x(n), y(n, 1);
#if !defined(NF_TESTS_ON_GPU)
  // All blocks would take a minute here.
  const WithOptions some({.only = {0, 65535, 65536, -1}});
#endif
  const auto check = [&](auto reference) {
    const std::vector<bf16> out = y.host();
    for (const std::int64_t block : {0, 65535, 65536, 65537})
      for (std::int64_t i = block * kBlock; i < std::min((block + 1) * kBlock, n); ++i)
        ASSERT_EQ(to_host_float(out[static_cast<std::size_t>(i)]), reference(i)) << "element " << i;
  };
  const auto draw = [](std::int64_t i) {
    return philox(kKey, static_cast<std::uint64_t>(i / 4), 9);
  };
  const auto rounded = [](float value) { return to_host_float(from_host_float<bf16>(value)); };
  fill_uniform(kStream, kKey, 9, y.data(), n, 0, 1);
  check([&](std::int64_t i) { return rounded(uniform01(draw(i).v[i % 4])); });
  fill_normal(kStream, kKey, 9, y.data(), n, 0, 1);
  check([&](std::int64_t i) { return rounded(normal4(draw(i)).v[i % 4]); });
  const bf16 one = from_host_float<bf16>(1);
  std::fill(x.data(), x.data() + n, one);
  dropout(kStream, 0.5, kKey, x.data(), y.data(), n, false);
  check([&](std::int64_t i) { return dropped_out(0.5, i, one, one, false); });
}

#if !defined(NF_TESTS_ON_GPU)
TEST(KernelsRandomLimits, MoreThanTwoToTheThirtyFourthElements) {
  // Their draws' numbers exceed 32 bits.
  constexpr std::int64_t n = (std::int64_t{1} << 34) + 1021;
  HugeArray<bf16> y(n + 1);
  if (y.failed()) GTEST_SKIP() << "no 32 GiB of addresses";
  const WithOptions last({.only = {-1}});
  const auto number = [](std::int64_t i) {
    const float u = uniform01(philox(kKey, static_cast<std::uint64_t>(i / 4), 0).v[i % 4]);
    return from_host_float<bf16>(u - 1).bits;
  };
  fill_uniform(kStream, kKey, 0, y.data(), n, -1, 0);
  // Of the last block: vectors, then what none holds.
  for (std::int64_t i = n - 1000; i < n; ++i) ASSERT_EQ(y.data()[i].bits, number(i)) << i;
  fill_uniform(kStream, kKey, 0, y.data() + 1, n, -1, 0);  // one by one
  for (std::int64_t i = n - 250; i < n; ++i) ASSERT_EQ(y.data()[i + 1].bits, number(i)) << i;
}

// What the header says.
TEST(KernelsRandomTraffic, MovesWhatItMust) {
  constexpr std::int64_t n = 8192;
  DeviceArray<float> x(random_values<float>(n, 3)), y(random_values<float>(n, 4));
  const WithOptions watching({.behaviour = true});
  const auto expect_moved = [](const char* name, std::int64_t loads, const auto& run) {
    SCOPED_TRACE(name);
    simt::emulator::reset_behaviour();
    run();
    const auto seen = simt::emulator::behaviour();
    ASSERT_EQ(seen.size(), 1U);
    EXPECT_EQ(seen[0].name, name);
    EXPECT_EQ(seen[0].loads.bytes_moved(), 4 * loads * n);
    EXPECT_EQ(seen[0].stores.bytes_moved(), 4 * n);
    EXPECT_EQ(seen[0].loads.requests, loads * n / 4 / 32);
    EXPECT_EQ(seen[0].stores.requests, n / 4 / 32);
  };
  expect_moved("dropout", 1, [&] { dropout(kStream, 0.5, kKey, x.data(), y.data(), n, false); });
  expect_moved("dropout", 2, [&] { dropout(kStream, 0.5, kKey, x.data(), y.data(), n, true); });
  expect_moved("fill_uniform", 0, [&] { fill_uniform(kStream, kKey, 0, y.data(), n, 0, 1); });
  expect_moved("fill_normal", 0, [&] { fill_normal(kStream, kKey, 0, y.data(), n, 0, 1); });
}
#endif

// Many more inputs than FillsAreTheHostsBits has: the tails too.
TEST(KernelsNormal, KernelAndHostGiveTheSameBits) {
  constexpr std::int64_t n = 200000;
  DeviceArray<float> y(n);
  fill_normal(kStream, kKey, 11, y.data(), n, 0, 1);
  const std::vector<float> actual = y.host();
  for (std::int64_t i = 0; i < n; ++i)
    ASSERT_EQ(actual[static_cast<std::size_t>(i)],
              normal4(philox(kKey, static_cast<std::uint64_t>(i / 4), 11)).v[i % 4])
        << "element " << i;
}

/// |value - exact| in units of the last place of a float like `exact`.
double units(float value, double exact) {
  if (exact == 0) return value == 0 ? 0 : std::numeric_limits<double>::infinity();
  const double unit = std::exp2(std::floor(std::log2(std::abs(exact))) - 23);
  return std::abs(static_cast<double>(value) - exact) / unit;
}

struct Point {
  double sin, cos;
};

/// Of 2 pi u. Reduced before pi comes in, so that zeros are zeros.
Point point_at(float u) {
  const double quarters = 4 * static_cast<double>(u), nearest = std::floor(quarters + 0.5);
  const double x = (quarters - nearest) * std::numbers::pi / 2;
  const double s = std::sin(x), c = std::cos(x);
  const Point points[] = {{s, c}, {c, -s}, {-s, -c}, {-c, s}};
  return points[static_cast<std::size_t>(nearest) % 4];
}

// Every turn of 2^-12 and its neighbours: zeros, extremes and seams between quadrants.
TEST(KernelsNormal, SineAndCosineAreCloseEverywhere) {
  double worst = 0;
  for (int turn = 0; turn < 1 << 12; ++turn)
    for (int step = -2; step <= 2; ++step) {
      const float u = static_cast<float>((turn << 12) + step) * 0x1p-24F;
      if (u < 0) continue;
      const normal_detail::SinCos actual = normal_detail::sin_cos(u);
      const Point exact = point_at(u);
      worst = std::max({worst, units(actual.sin, exact.sin), units(actual.cos, exact.cos)});
    }
  EXPECT_LE(worst, 2);
}

// Near 0 and 1, and some of all between.
TEST(KernelsNormal, LogarithmIsCloseEverywhere) {
  double worst = 0;
  const auto check = [&](std::int64_t numerator) {
    const float u = static_cast<float>(numerator) * 0x1p-24F;
    worst = std::max(worst, units(normal_detail::logarithm(u), std::log(static_cast<double>(u))));
  };
  constexpr std::int64_t kOne = 1 << 24;
  for (std::int64_t i = 0; i < 5000; ++i) {
    check(i + 1);
    check(kOne - i);
  }
  for (std::int64_t i = 1; i < kOne; i += 127) check(i);
  EXPECT_LE(worst, 2);
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
      const Point exact = point_at(uniform01(bits.v[2 * pair + 1]));
      worst = std::max({worst, units(four.v[2 * pair], radius * exact.cos),
                        units(four.v[2 * pair + 1], radius * exact.sin)});
    }
  }
  EXPECT_LE(worst, 4);
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
