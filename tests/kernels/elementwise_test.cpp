#include "kernels/elementwise.h"

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "tests/kernels/device.h"
#if !defined(NF_TESTS_ON_GPU)
#include "tests/kernels/emulated.h"
#endif

namespace nf::NF_TARGET::test {
namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <typename T>
std::uint64_t bits(T value) {
  std::uint64_t result = 0;
  std::memcpy(&result, &value, sizeof(T));
  return result;
}

template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_integral_v<T> || std::is_same_v<T, double>)
    return value != value;
  else
    return std::isnan(to_host_float(value));
}

/// Each operator rounds once, so every bit is known, but for those of a NaN.
template <typename T>
void expect_same(const std::vector<T>& actual, const std::vector<T>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (is_nan(expected[i]) && is_nan(actual[i])) continue;
    ASSERT_EQ(bits(actual[i]), bits(expected[i])) << "element " << i;
  }
}

/// op of each element's floats, rounded to T.
template <typename T, typename Op, typename U, typename... More>
std::vector<T> expected(const Op& op, const std::vector<U>& first, const More&... others) {
  std::vector<T> result;
  for (std::size_t i = 0; i < first.size(); ++i)
    result.push_back(from_host_float<T>(op(to_host_float(first[i]), to_host_float(others[i])...)));
  return result;
}

/// Calls run(n, offsets of three operands): tails of vectors and of blocks, operands that are
/// aligned, together off alignment, and each alone off it.
template <typename Run>
void for_layouts(const Run& run) {
  constexpr int64_t kOffsets[][3] = {{0, 0, 0}, {1, 1, 1}, {3, 3, 3}, {1, 0, 0},
                                     {0, 1, 0}, {0, 0, 1}, {4, 1, 2}};
  for (const int64_t n : {1, 7, 8, 31, 300, 4099, 8201})
    for (const auto& offsets : kOffsets) {
      SCOPED_TRACE("n " + std::to_string(n) + ", offsets " + std::to_string(offsets[0]) + " " +
                   std::to_string(offsets[1]) + " " + std::to_string(offsets[2]));
      run(n, offsets);
    }
}

/// Random, with values among them that are told apart by relu.
template <typename T>
std::vector<T> telling_values(int64_t n, std::uint32_t seed, float bound) {
  std::vector<T> values = random_values<T>(n, seed, -4, 10);
  const float special[] = {kNaN, kInfinity, -kInfinity, 0.0F, -0.0F, bound, -bound, 1e-7F, -1e-7F};
  for (std::size_t i = 0; i < std::size(special) && i * 3 < values.size(); ++i)
    values[i * 3] = from_host_float<T>(special[i]);
  return values;
}

template <typename T>
class KernelsElementwise : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsElementwise, StorageTypes);

TYPED_TEST(KernelsElementwise, Add) {
  using T = TypeParam;
  const auto sum = [](float a, float b) { return a + b; };
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    const auto a = random_values<T>(n, 1), b = random_values<T>(n, 2);
    DeviceArray<T> x(a, offsets[0]), y(b, offsets[1]), out(n, offsets[2]);
    add(kStream, x.data(), y.data(), out.data(), n);
    expect_same(out.host(), expected<T>(sum, a, b));
    add(kStream, x.data(), y.data(), y.data(), n);
    expect_same(y.host(), expected<T>(sum, a, b));
    add(kStream, x.data(), out.data(), x.data(), n);
    expect_same(x.host(), expected<T>(sum, a, out.host()));
  });
}

TYPED_TEST(KernelsElementwise, Axpy) {
  using T = TypeParam;
  const auto fused = [](float a, float b) { return std::fma(-1.7F, a, b); };
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    const auto a = random_values<T>(n, 3), b = random_values<T>(n, 4);
    DeviceArray<T> x(a, offsets[0]), y(b, offsets[1]);
    axpy(kStream, -1.7F, x.data(), y.data(), n);
    expect_same(y.host(), expected<T>(fused, a, b));
    axpy(kStream, -1.7F, x.data(), x.data(), n);
    expect_same(x.host(), expected<T>(fused, a, a));
  });
}

TYPED_TEST(KernelsElementwise, Scale) {
  using T = TypeParam;
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    const auto a = telling_values<T>(n, 5, 1);
    DeviceArray<T> x(a, offsets[0]), y(n, offsets[1]);
    const auto scaled = expected<T>([](float value) { return 0.3F * value; }, a);
    scale(kStream, 0.3F, x.data(), y.data(), n);
    expect_same(y.host(), scaled);
    scale(kStream, 0.3F, x.data(), x.data(), n);
    expect_same(x.host(), scaled);
  });
}

TYPED_TEST(KernelsElementwise, ReluForward) {
  using T = TypeParam;
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    // 0.1 is not a bfloat16.
    for (const float bound : {6.0F, kInfinity, 0.1F}) {
      const auto in = telling_values<T>(n, 6, bound);
      DeviceArray<T> x(in, offsets[0]), y(n, offsets[1]);
      relu_forward(kStream, x.data(), y.data(), n, bound);
      const auto cut = expected<T>(
          [&](float value) {
            if (std::isnan(value)) return value;
            return value < 0 ? 0.0F : std::min(value, to_host_float(from_host_float<T>(bound)));
          },
          in);
      expect_same(y.host(), cut);
      relu_forward(kStream, x.data(), x.data(), n, bound);
      expect_same(x.host(), cut);
    }
  });
}

TYPED_TEST(KernelsElementwise, ReluBackward) {
  using T = TypeParam;
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    for (const float bound : {6.0F, kInfinity, 0.1F}) {
      const auto out = telling_values<T>(n, 7, bound), up = telling_values<T>(n + 1, 8, 1);
      const std::vector<T> upstream(up.begin() + 1, up.end());  // NaN beside other values of y
      const auto old = random_values<T>(n, 9);
      const float limit = to_host_float(from_host_float<T>(bound));
      const auto mask = [&](float y, float dy) { return y > 0 && y < limit ? dy : 0.0F; };
      DeviceArray<T> y(out, offsets[0]), dy(upstream, offsets[1]), dx(old, offsets[2]);
      relu_backward(kStream, y.data(), dy.data(), dx.data(), n, bound, true);
      expect_same(dx.host(), expected<T>([&](float a, float b, float c) { return c + mask(a, b); },
                                         out, upstream, old));
      relu_backward(kStream, y.data(), dy.data(), dx.data(), n, bound, false);
      expect_same(dx.host(), expected<T>(mask, out, upstream));
      relu_backward(kStream, y.data(), dy.data(), dy.data(), n, bound, false);
      expect_same(dy.host(), expected<T>(mask, out, upstream));
    }
  });
}

TYPED_TEST(KernelsElementwise, AddBias) {
  using T = TypeParam;
  constexpr int64_t kShapes[][2] = {{1, 1},    {5, 1},     {300, 3},  {9, 8},
                                    {33, 10},  {129, 64},  {3, 1000}, {1, 4099},
                                    {700, 13}, {1025, 16}, {2, 2}};
  for (const auto& [rows, channels] : kShapes)
    for (const auto& [bias_offset, y_offset] : {std::pair{0, 0}, {1, 0}, {0, 1}, {3, 3}, {0, 4}}) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(channels) + ", offsets " +
                   std::to_string(bias_offset) + " " + std::to_string(y_offset));
      const auto b = random_values<T>(channels, 10), in = random_values<T>(rows * channels, 11);
      std::vector<T> sums;
      for (std::size_t i = 0; i < in.size(); ++i)
        sums.push_back(from_host_float<T>(to_host_float(in[i]) + to_host_float(b[i % b.size()])));
      DeviceArray<T> bias(b, bias_offset), y(in, y_offset);
      add_bias(kStream, bias.data(), y.data(), rows, channels);
      expect_same(y.host(), sums);
    }
}

TYPED_TEST(KernelsElementwise, AddBiasWithWhatFollows) {
  using T = TypeParam;
  constexpr int64_t kShapes[][2] = {{1, 1}, {300, 3}, {9, 8}, {129, 64}, {700, 13}, {2, 4099}};
  for (const auto& [rows, channels] : kShapes)
    for (const auto& [residual_offset, y_offset] : {std::pair{0, 0}, {1, 0}, {0, 1}, {3, 3}})
      for (const bool adds : {false, true})
        for (const float bound : {-1.0F, 0.6F, std::numeric_limits<float>::infinity()}) {
          SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(channels) + ", offsets " +
                       std::to_string(residual_offset) + " " + std::to_string(y_offset));
          const bool cuts = bound > 0;
          const float limit = to_host_float(from_host_float<T>(bound));
          const auto b = random_values<T>(channels, 10), in = random_values<T>(rows * channels, 11),
                     r = random_values<T>(rows * channels, 12);
          std::vector<T> sums;
          for (std::size_t i = 0; i < in.size(); ++i) {
            float sum = to_host_float(in[i]) + to_host_float(b[i % b.size()]);
            if (adds) sum += to_host_float(r[i]);
            sums.push_back(from_host_float<T>(cuts ? std::clamp(sum, 0.0F, limit) : sum));
          }
          DeviceArray<T> bias(b, 0), residual(r, residual_offset), y(in, y_offset);
          add_bias(kStream, bias.data(), y.data(), rows, channels,
                   {adds ? residual.data() : nullptr, cuts, bound});
          expect_same(y.host(), sums);
        }
}

TYPED_TEST(KernelsElementwise, SpreadRows) {
  using T = TypeParam;
  constexpr int64_t kShapes[][2] = {{1, 1},    {5, 1},     {300, 3},  {9, 8},
                                    {33, 10},  {129, 64},  {3, 1000}, {1, 4099},
                                    {700, 13}, {1025, 16}, {2, 2}};
  for (const auto& [rows, columns] : kShapes)
    for (const int y_offset : {0, 1, 3, 4})
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(columns) + ", offset " +
                     std::to_string(y_offset) + (accumulate ? ", accumulate" : ""));
        const auto in = random_values<float>(rows, 10);
        const auto before = random_values<T>(rows * columns, 11);
        std::vector<T> spread;
        for (std::size_t i = 0; i < before.size(); ++i)
          spread.push_back(
              from_host_float<T>(std::fma(0.3F, in[i / static_cast<std::size_t>(columns)],
                                          accumulate ? to_host_float(before[i]) : 0.0F)));
        DeviceArray<float> x(in);
        DeviceArray<T> y(before, y_offset);
        spread_rows(kStream, 0.3F, x.data(), y.data(), rows, columns, accumulate);
        expect_same(y.host(), spread);
      }
}

TYPED_TEST(KernelsElementwise, NothingToDo) {
  TypeParam* none = nullptr;
  fill(kStream, none, 0, 1);
  copy(kStream, none, none, 0);
  add(kStream, none, none, none, 0);
  axpy(kStream, 1, none, none, 0);
  scale(kStream, 1, none, none, 0);
  relu_forward(kStream, none, none, 0, 6);
  relu_backward(kStream, none, none, none, 0, 6, true);
  add_bias(kStream, none, none, 0, 3);
  add_bias(kStream, none, none, 3, 0);
  spread_rows(kStream, 1, nullptr, none, 0, 3, true);
  spread_rows(kStream, 1, nullptr, none, 3, 0, true);
}

template <typename T>
class KernelsElementwiseFill : public ::testing::Test {};
using FillTypes = ::testing::Types<float, bf16, f16, double, std::uint8_t, std::int32_t, int64_t>;
TYPED_TEST_SUITE(KernelsElementwiseFill, FillTypes);

TYPED_TEST(KernelsElementwiseFill, Fills) {
  using T = TypeParam;
  double value = 0.1;
  if constexpr (std::is_integral_v<T>)
    value = sizeof(T) == 1 ? 255.0 : sizeof(T) == 4 ? -2147483647.0 : -0x1.5p50;
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    DeviceArray<T> y(n, offsets[0]);
    for (const double v : {0.0, value}) {
      fill(kStream, y.data(), n, v);
      T each;
      if constexpr (std::is_arithmetic_v<T>)
        each = static_cast<T>(v);
      else
        each = from_host_float<T>(static_cast<float>(v));
      expect_same(y.host(), std::vector<T>(static_cast<std::size_t>(n), each));
    }
  });
}

template <typename T>
class KernelsElementwiseCast : public ::testing::Test {};
using CastPairs =
    ::testing::Types<std::pair<float, bf16>, std::pair<float, f16>, std::pair<bf16, float>,
                     std::pair<bf16, f16>, std::pair<f16, float>, std::pair<f16, bf16>>;
TYPED_TEST_SUITE(KernelsElementwiseCast, CastPairs);

TYPED_TEST(KernelsElementwiseCast, Casts) {
  using From = typename TypeParam::first_type;
  using To = typename TypeParam::second_type;
  const auto same = [](float x) { return x; };
  for_layouts([&](int64_t n, const int64_t(&offsets)[3]) {
    const auto in = telling_values<From>(n, 12, 1e5F);
    DeviceArray<From> x(in, offsets[0]);
    DeviceArray<To> y(n, offsets[1]);
    cast(kStream, x.data(), y.data(), n);
    expect_same(y.host(), expected<To>(same, in));
  });
  // Every half, or each bit pattern that one starts with, followed by random bits or a tie.
  std::mt19937 random(13);
  std::vector<From> all;
  for (std::uint32_t i = 0; i < 1U << 16; ++i) {
    if constexpr (sizeof(From) == 2)
      all.push_back({static_cast<std::uint16_t>(i)});
    else
      for (const std::uint32_t low : {static_cast<std::uint32_t>(random() & 0xffffU), 0x8000U})
        all.push_back(std::bit_cast<float>(i << 16 | low));
  }
  DeviceArray<From> x(all);
  DeviceArray<To> y(x.size());
  cast(kStream, x.data(), y.data(), x.size());
  expect_same(y.host(), expected<To>(same, all));
}

std::vector<std::uint8_t> random_bytes(int64_t n) {
  std::mt19937 random(14);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

TEST(KernelsElementwiseCopy, AnyAlignmentAndSize) {
  for (const int64_t n : {1, 2, 15, 16, 17, 47, 1000, 8192 + 5})
    for (const int64_t from : {0, 1, 2, 4, 8, 15})
      for (const int64_t to : {0, 1, 2, 3, 6, 12, 15}) {
        SCOPED_TRACE(std::to_string(n) + " bytes, offsets " + std::to_string(from) + " " +
                     std::to_string(to));
        const auto in = random_bytes(n);
        DeviceArray<std::uint8_t> x(in, from), y(n, to);
        copy(kStream, x.data(), y.data(), n);
        ASSERT_EQ(y.host(), in);
      }
}

TEST(KernelsElementwiseCopy, MoreThanTwoToTheSixteenthBlocks) {
  constexpr int64_t kBlock = 512;  // bytes, when they go one by one
  constexpr int64_t n = 65537 * kBlock + 3;
  const auto in = random_bytes(n);
  DeviceArray<std::uint8_t> x(in, 1), y(n);
#if !defined(NF_TESTS_ON_GPU)
  // All blocks would take half a minute here.
  const WithOptions some({.only = {0, 65535, 65536, -1}});
#endif
  copy(kStream, x.data(), y.data(), n);
  const auto out = y.host();
  for (const int64_t block : {0, 65535, 65536, 65537})
    for (int64_t i = block * kBlock; i < std::min((block + 1) * kBlock, n); ++i)
      ASSERT_EQ(out[static_cast<std::size_t>(i)], in[static_cast<std::size_t>(i)]) << "byte " << i;
}

#if !defined(NF_TESTS_ON_GPU)
// The first block, which sees to the tail, and the last must find their places, which 32 bits
// don't hold.
TEST(KernelsElementwiseLimits, MoreThanTwoToTheThirtyFirstElements) {
  constexpr int64_t n = (int64_t{1} << 32) + 12347;  // a multiple of 3, but not of vectors
  HugeArray<f16> x(n);
  if (x.failed()) GTEST_SKIP() << "no 8 GiB of addresses";
  const WithOptions ends({.only = {0, -1}});
  const f16 zero{}, one = from_host_float<f16>(1), two = from_host_float<f16>(2);
  const auto expect_ends = [&](f16 value) {
    for (const int64_t i : {n - 1, n - 4}) {
      EXPECT_EQ(x.data()[i].bits, value.bits);
      for (const int bits : {31, 32}) EXPECT_EQ(x.data()[i - (int64_t{1} << bits)].bits, 0);
    }
  };
  fill(kStream, x.data(), n, 1);
  expect_ends(one);
  add(kStream, x.data(), x.data(), x.data(), n);
  expect_ends(two);
  HugeArray<f16> y(n + 1);
  ASSERT_FALSE(y.failed());
  add(kStream, x.data(), y.data() + 1, y.data() + 1, n);  // one by one
  EXPECT_EQ(y.data()[n].bits, two.bits);
  EXPECT_EQ(y.data()[n - (int64_t{1} << 32)].bits, 0);
  const int64_t half = n / 2;  // more than 2^32 bytes
  copy(kStream, x.data() + n - half, x.data(), 2 * half);
  for (const int64_t i : {half - 1, half - 4}) {
    EXPECT_EQ(x.data()[i].bits, two.bits);
    x.data()[i] = x.data()[i + n - half] = zero;
  }
  DeviceArray<f16> bias(std::vector<f16>{zero, one, two});
  add_bias(kStream, bias.data(), x.data(), n / 3, 3);
  expect_ends(two);
  DeviceArray<float> row(std::vector<float>{3});
  spread_rows(kStream, 1, row.data(), x.data(), 1, n, false);  // a row in pieces
  EXPECT_EQ(to_host_float(x.data()[0]), 3);
  EXPECT_EQ(to_host_float(x.data()[n - 1]), 3);
}

TEST(KernelsElementwiseLimits, AddBiasNamesItsLimit) {
  float* none = nullptr;
  EXPECT_THROW(add_bias(kStream, none, none, 1, int64_t{1} << 31), KernelError);
}

// What the header says.
TEST(KernelsElementwiseTraffic, MovesWhatItMust) {
  constexpr int64_t n = 8192;
  DeviceArray<float> a(random_values<float>(n, 15)), b(random_values<float>(n, 16)), c(n);
  DeviceArray<bf16> narrow(n);
  const WithOptions watching({.behaviour = true});
  // `loaded` and `stored` bytes per element, `loads` accesses to four of them.
  const auto expect_moved = [](const char* name, int64_t loaded, int64_t stored, int64_t loads,
                               const auto& run) {
    SCOPED_TRACE(name);
    simt::emulator::reset_behaviour();
    run();
    const auto seen = simt::emulator::behaviour();
    ASSERT_EQ(seen.size(), 1U);
    EXPECT_EQ(seen[0].name, name);
    EXPECT_EQ(seen[0].loads.bytes_moved(), loaded * n);
    EXPECT_EQ(seen[0].stores.bytes_moved(), stored * n);
    EXPECT_EQ(seen[0].loads.requests, loads * n / 4 / 32);
    EXPECT_EQ(seen[0].stores.requests, n / 4 / 32);
  };
  float *x = a.data(), *dy = b.data(), *y = c.data();
  expect_moved("fill", 0, 4, 0, [&] { fill(kStream, y, n, 1); });
  expect_moved("copy", 4, 4, 1, [&] { copy(kStream, x, y, 4 * n); });
  expect_moved("cast", 4, 2, 1, [&] { cast(kStream, x, narrow.data(), n); });
  expect_moved("cast", 2, 4, 1, [&] { cast(kStream, narrow.data(), y, n); });
  expect_moved("add", 8, 4, 2, [&] { add(kStream, x, dy, y, n); });
  expect_moved("axpy", 8, 4, 2, [&] { axpy(kStream, 2, x, y, n); });
  expect_moved("scale", 4, 4, 1, [&] { scale(kStream, 2, x, y, n); });
  expect_moved("relu_forward", 4, 4, 1, [&] { relu_forward(kStream, x, y, n, 6); });
  expect_moved("relu_backward", 8, 4, 2, [&] { relu_backward(kStream, x, dy, y, n, 6, false); });
  expect_moved("relu_backward", 12, 4, 3, [&] { relu_backward(kStream, x, dy, y, n, 6, true); });
  // And the bias, as large as y here.
  expect_moved("add_bias", 8, 4, 2, [&] { add_bias(kStream, x, y, 1, n); });
}
#endif

}  // namespace
}  // namespace nf::NF_TARGET::test
