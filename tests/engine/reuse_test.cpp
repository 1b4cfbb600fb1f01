// What a copy into device memory has to wait for.
#include "engine/memory/reuse.h"

#include <gtest/gtest.h>

namespace nf {
namespace {

TEST(ReuseTracker, FreshMemoryWaitsForNothing) {
  ReuseTracker reuse;
  reuse.granted(0, 100, 7);
  EXPECT_EQ(reuse.calls_before_write(0, 7), 0U);
  EXPECT_EQ(reuse.calls_before_write(50, 7), 0U);
}

TEST(ReuseTracker, WaitsForWhoeverHadTheMemoryBefore) {
  ReuseTracker reuse;
  reuse.granted(256, 256, 0);
  reuse.freed(256, 256, 5);
  reuse.granted(256, 100, 9);
  EXPECT_EQ(reuse.calls_before_write(256, 9), 5U);
}

// A call since then may have read or written it: pointers don't tell.
TEST(ReuseTracker, MemoryThatMayBeInUseWaitsForAllCalls) {
  ReuseTracker reuse;
  reuse.granted(0, 256, 3);
  EXPECT_EQ(reuse.calls_before_write(0, 4), 4U);
  EXPECT_EQ(reuse.calls_before_write(10, 4), 4U);
}

TEST(ReuseTracker, WhatWasNeverGrantedWaitsForAllCalls) {
  ReuseTracker reuse;
  EXPECT_EQ(reuse.calls_before_write(0, 4), 4U);
  reuse.granted(512, 10, 4);
  EXPECT_EQ(reuse.calls_before_write(0, 4), 4U);
  EXPECT_EQ(reuse.calls_before_write(522, 4), 4U);
}

TEST(ReuseTracker, TheLatestOfSeveralFormerOwnersCounts) {
  ReuseTracker reuse;
  reuse.granted(0, 256, 0);
  reuse.granted(256, 256, 0);
  reuse.granted(512, 256, 0);
  reuse.freed(256, 256, 8);
  reuse.freed(0, 256, 3);
  reuse.freed(512, 256, 4);
  reuse.granted(0, 256, 10);
  EXPECT_EQ(reuse.calls_before_write(0, 10), 3U);
  reuse.granted(256, 512, 10);
  EXPECT_EQ(reuse.calls_before_write(256, 10), 8U);
}

// A piece is freed again where it overlaps former pieces in part: their rests keep their time.
TEST(ReuseTracker, PiecesOfOtherSizesCutFormerOnes) {
  ReuseTracker reuse;
  reuse.granted(0, 1024, 0);
  reuse.freed(0, 1024, 2);
  reuse.granted(256, 256, 3);
  reuse.freed(256, 256, 6);
  const auto before = [&](std::int64_t offset, std::int64_t bytes) {
    reuse.granted(offset, bytes, 10);
    return reuse.calls_before_write(offset, 10);
  };
  EXPECT_EQ(before(0, 256), 2U);
  EXPECT_EQ(before(256, 256), 6U);
  EXPECT_EQ(before(512, 512), 2U);
  reuse.freed(0, 512, 20);
  EXPECT_EQ(before(0, 256), 20U);
  EXPECT_EQ(before(256, 256), 20U);
  EXPECT_EQ(before(512, 256), 2U);
}

TEST(ReuseTracker, APieceOfNoBytesHasAnOwnerToo) {
  ReuseTracker reuse;
  reuse.granted(0, 256, 0);
  reuse.freed(0, 256, 4);
  reuse.granted(0, 0, 6);
  EXPECT_EQ(reuse.calls_before_write(0, 6), 4U);
}

}  // namespace
}  // namespace nf
