// Division by a number that a whole launch shares: a product and a shift on the device.
#pragma once

#include <cstdint>

#include "kernels/simt.h"

namespace nf::NF_TARGET {

struct Divider {
  std::int32_t divisor = 1;
  std::uint32_t multiplier = 1U << 31;
  std::uint32_t shift = 31;
};

/// For 1 <= divisor < 2^31. The multiplier is 2^shift / divisor rounded up: exact for what is
/// divided below 2^31, as its error times that stays below 2^shift.
constexpr Divider make_divider(std::int64_t divisor) {
  std::uint32_t bits = 0;
  while ((std::int64_t{1} << bits) < divisor) ++bits;
  const std::uint32_t shift = 31 + bits;
  const auto d = static_cast<std::uint64_t>(divisor);
  return {static_cast<std::int32_t>(divisor),
          static_cast<std::uint32_t>(((std::uint64_t{1} << shift) + d - 1) / d), shift};
}

/// value / divisor, for value >= 0.
NF_DEVICE std::int32_t quotient(std::int32_t value, const Divider& by) {
  return static_cast<std::int32_t>(
      (static_cast<std::uint64_t>(static_cast<std::uint32_t>(value)) * by.multiplier) >> by.shift);
}

/// Replaces value by value / divisor and returns the remainder.
NF_DEVICE std::int32_t take_remainder(std::int32_t& value, const Divider& by) {
  const std::int32_t whole = quotient(value, by);
  const std::int32_t rest = value - whole * by.divisor;
  value = whole;
  return rest;
}

}  // namespace nf::NF_TARGET
