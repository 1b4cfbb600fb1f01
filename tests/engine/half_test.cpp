// The two 16-bit formats, against a decoder and a rounder written from their definitions.
#include "kernels/half.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/random.h"

namespace nf {
namespace {

struct Format {
  int exponent_bits, mantissa_bits;

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  std::uint16_t infinity() const {
    return static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  }
  /// The value that a pattern stands for, from the definition of the format.
  double decode(std::uint16_t bits) const {
    const int mantissa = bits & ((1 << mantissa_bits) - 1);
    const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    const double sign = (bits >> 15) != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return mantissa != 0 ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias() - mantissa_bits);
    return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias() - mantissa_bits);
  }
  /// The nearest pattern, ties to the even one, by searching all of them.
  std::uint16_t round(double value) const {
    const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000U : 0U);
    const double magnitude = std::abs(value);
    static thread_local std::vector<double> ladder;
    static thread_local int ladder_bits = 0;
    if (ladder_bits != exponent_bits) {
      ladder.clear();
      for (std::uint16_t bits = 0; bits < infinity(); ++bits) ladder.push_back(decode(bits));
      // Beyond the largest number infinity stands where the next one would.
      ladder.push_back(2 * ladder.back() - ladder[ladder.size() - 2]);
      ladder_bits = exponent_bits;
    }
    if (magnitude >= ladder.back()) return static_cast<std::uint16_t>(sign | infinity());
    const auto above = std::upper_bound(ladder.begin(), ladder.end(), magnitude);
    const auto upper = static_cast<std::uint16_t>(above - ladder.begin());
    const auto lower = static_cast<std::uint16_t>(upper - 1);
    const double to_lower = magnitude - ladder[lower], to_upper = ladder[upper] - magnitude;
    const bool up = to_upper < to_lower || (to_upper == to_lower && (lower & 1U) != 0);
    return static_cast<std::uint16_t>(sign | (up ? upper : lower));
  }
};

constexpr Format kF16{5, 10}, kBf16{8, 7};

template <typename Narrow, typename Widen>
void expect_round_trip(const Format& format, Narrow narrow, Widen widen) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const double expected = format.decode(bits);
    const float wide = widen(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(wide)) << i;
      ASSERT_TRUE(std::isnan(format.decode(narrow(wide)))) << i << ": NaN became a number";
      continue;
    }
    ASSERT_EQ(static_cast<double>(wide), expected) << i;
    ASSERT_EQ(std::signbit(wide), std::signbit(expected)) << i;
    ASSERT_EQ(narrow(wide), bits);
  }
}

/// Every value, every midpoint to the next and both neighbours of the midpoint, and random floats.
template <typename Narrow, typename Widen>
void expect_nearest_even(const Format& format, Narrow narrow, Widen widen) {
  const auto check = [&](float value) {
    ASSERT_EQ(narrow(value), format.round(static_cast<double>(value))) << std::hexfloat << value;
  };
  for (std::uint16_t bits = 0; bits < format.infinity(); ++bits) {
    const auto next = static_cast<std::uint16_t>(bits + 1);
    const double upper = next == format.infinity()
                             ? 2 * format.decode(bits) - format.decode(bits - 1)
                             : format.decode(next);
    const auto middle = static_cast<float>((format.decode(bits) + upper) / 2);
    for (const float sign : {1.0F, -1.0F}) {
      check(sign * widen(bits));
      check(sign * middle);
      check(sign * std::nextafter(middle, 0.0F));
      check(sign * std::nextafter(middle, INFINITY));
    }
  }
  RandomStream random(11);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(random.next_bits());
    if (!std::isnan(value)) check(value);
  }
  check(INFINITY);
  check(-INFINITY);
  check(std::numeric_limits<float>::max());
  check(std::numeric_limits<float>::denorm_min());
}

TEST(Half, EveryF16RoundTrips) { expect_round_trip(kF16, float_to_f16, f16_to_float); }
TEST(Half, EveryBf16RoundTrips) { expect_round_trip(kBf16, float_to_bf16, bf16_to_float); }
TEST(Half, F16RoundsToNearestEven) { expect_nearest_even(kF16, float_to_f16, f16_to_float); }
TEST(Half, Bf16RoundsToNearestEven) { expect_nearest_even(kBf16, float_to_bf16, bf16_to_float); }

TEST(Half, NanStaysNanWhereverItsBitsAre) {
  for (const std::uint32_t bits : {0x7f800001U, 0x7fc00000U, 0xffffffffU, 0xff800001U}) {
    EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(std::bit_cast<float>(bits))))) << bits;
    EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(bits))))) << bits;
  }
}

}  // namespace
}  // namespace nf
