// How a width multiplier rounds numbers of channels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace nf::nn {

/// To the nearest whole number, at least 1.
inline std::int64_t scaled_channels(std::int64_t channels, double width) {
  return std::max<std::int64_t>(1, std::llround(static_cast<double>(channels) * width));
}

/// To the nearest multiple of 8, at least 8, and up where rounding down would lose more than a
/// tenth: the rule of the MobileNets.
inline std::int64_t divisible_channels(std::int64_t channels, double width) {
  const double wanted = static_cast<double>(channels) * width;
  const auto nearest = static_cast<std::int64_t>(wanted + 4) / 8 * 8;
  const std::int64_t rounded = std::max<std::int64_t>(8, nearest);
  return static_cast<double>(rounded) < 0.9 * wanted ? rounded + 8 : rounded;
}

}  // namespace nf::nn
