// What passes read where there is nothing: pixels outside a map, a bias that is not there.
#pragma once

#include <cstdint>

namespace nf::cpu {

/// Channels that a row of zeros serves at most.
inline constexpr std::int64_t kMostZeros = 1 << 16;

/// Never written, so that no step spends time, or its workspace memory, on a row of its own.
alignas(64) inline constexpr float kZeros[kMostZeros] = {};

}  // namespace nf::cpu
