#include "engine/cores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace nf {
namespace {

TEST(Cores, AQuotaCountsEveryCoreBegun) {
  EXPECT_EQ(quota_cores("200000 100000"), 2);
  EXPECT_EQ(quota_cores("150000 100000\n"), 2);
  EXPECT_EQ(quota_cores("10000 100000"), 1);
  EXPECT_EQ(quota_cores("9223372036854775807 1"), 9223372036854775807);
}

TEST(Cores, WhatSetsNoQuotaIsNone) {
  for (const char* text : {"max 100000", "", "200000", "200000 ", "200000 max", "0 100000",
                           "-1 100000", "200000 0", "99999999999999999999 100000"})
    EXPECT_EQ(quota_cores(text), 0) << text;
}

TEST(Cores, AtLeastOneAndNoMoreThanThereAre) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
}

#if defined(__linux__)
TEST(Cores, AffinityIsRespected) {
  std::jthread([] {
    cpu_set_t before, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++core)
      if (CPU_ISSET(core, &before)) CPU_SET(core, &one);
    // Of this thread alone, which ends with the test.
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(usable_cores(), 1);
  }).join();
}
#endif

}  // namespace
}  // namespace nf
