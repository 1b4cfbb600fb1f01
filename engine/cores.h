// How many threads of this process can run at the same time.
#pragma once

#include <cstdint>
#include <string_view>

namespace nf {

/// Cores that the system lets this process use: on Linux those of its affinity, and no more than
/// the quota of its control group (version 2) and of those above it. At least 1.
int usable_cores();

/// Cores that a cpu.max file ("QUOTA PERIOD" or "max PERIOD") allows, part of one counting as one;
/// 0 where it sets no limit or is not understood.
std::int64_t quota_cores(std::string_view cpu_max);

}  // namespace nf
