#include "engine/memory/pool.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "engine/random.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr std::int64_t kGranule = 256;

/// Addresses that nobody may touch; remembers what the pool says of them.
class FakeRange : public AddressRange {
 public:
  explicit FakeRange(std::int64_t bytes) : bytes_(bytes) {}
  std::byte* base() const override { return reinterpret_cast<std::byte*>(0x100000); }
  std::int64_t bytes() const override { return bytes_; }
  void mark_granted(std::int64_t offset, std::int64_t bytes) override {
    marks.push_back(fmt::format("+{}:{}", offset, bytes));
  }
  void mark_free(std::int64_t offset, std::int64_t bytes) override {
    marks.push_back(fmt::format("-{}:{}", offset, bytes));
  }
  std::vector<std::string> marks;

 private:
  std::int64_t bytes_;
};

struct TestPool {
  explicit TestPool(std::int64_t limit)
      : range(new FakeRange(limit)), pool(std::unique_ptr<AddressRange>(range), kGranule) {}
  std::int64_t allocate(std::int64_t bytes, Category category = Category::activation) {
    return pool.allocate(bytes, category) - range->base();
  }
  void free(std::int64_t offset) { pool.free(range->base() + offset); }

  FakeRange* range;
  Pool pool;
};

TEST(Pool, ChargesWholeGranules) {
  TestPool t(1 << 20);
  EXPECT_EQ(t.allocate(0), 0);
  EXPECT_EQ(t.allocate(1), 256);
  EXPECT_EQ(t.allocate(256), 512);
  EXPECT_EQ(t.allocate(257), 768);
  EXPECT_EQ(t.allocate(1), 1280);
  EXPECT_EQ(t.pool.stats().live, 1536);
  EXPECT_EQ(t.pool.granted(0), 256);
  EXPECT_EQ(t.pool.granted(512), 512);
}

TEST(Pool, TakesTheSmallestHoleThatHolds) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(1024), b = t.allocate(256), c = t.allocate(512);
  const std::int64_t d = t.allocate(256), e = t.allocate(512), f = t.allocate(256);
  for (const std::int64_t hole : {a, c, e}) t.free(hole);
  EXPECT_EQ(t.allocate(300), c) << "two holes of 512 bytes: the lower one";
  EXPECT_EQ(t.allocate(300), e);
  EXPECT_EQ(t.allocate(300), a) << "only then the larger";
  EXPECT_EQ(t.allocate(512), a + 512) << "what is left of it";
  for (const std::int64_t offset : {b, d, f}) t.free(offset);
}

TEST(Pool, JoinsNeighbouringHoles) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(256), b = t.allocate(256), c = t.allocate(256);
  t.allocate(256);
  t.free(a);
  t.free(c);
  t.free(b);
  EXPECT_EQ(t.allocate(768), a);
}

TEST(Pool, GivesBackItsEnd) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(256), b = t.allocate(256), c = t.allocate(256);
  t.free(b);
  EXPECT_EQ(t.pool.stats().reserved, 768);
  t.free(c);
  EXPECT_EQ(t.pool.stats().reserved, 256) << "the hole before the end goes too";
  t.free(a);
  EXPECT_EQ(t.pool.stats().reserved, 0);
  EXPECT_EQ(t.pool.stats().peak_reserved, 768);
  EXPECT_EQ(t.pool.stats().peak_live, 768);
}

TEST(PoolDeathTest, FreesOnlyWhatItGranted) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(256);
  EXPECT_DEATH(t.free(a + 1), "pool: asked to free 0x100001, which it did not grant");
  EXPECT_DEATH(t.free(a + 256), "pool: asked to free 0x100100");
  EXPECT_DEATH(t.pool.free(nullptr), "pool: asked to free");
  t.free(a);
  EXPECT_EQ(t.pool.stats().live, 0);
  EXPECT_DEATH(t.free(a), "or has back already");
}

TEST(Pool, TellsTheRangeWhatMayBeTouched) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(10), b = t.allocate(300);
  t.free(a);
  t.free(b);
  EXPECT_EQ(t.range->marks, (std::vector<std::string>{"+0:10", "+256:300", "-0:256", "-256:512"}));
}

TEST(Pool, CountsByCategory) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(10, Category::parameter);
  t.allocate(300, Category::workspace);
  t.allocate(10, Category::workspace);
  const auto of = [&](Category c) {
    return t.pool.stats().by_category[static_cast<std::size_t>(c)];
  };
  EXPECT_EQ(of(Category::parameter), 256);
  EXPECT_EQ(of(Category::workspace), 768);
  t.free(a);
  EXPECT_EQ(of(Category::parameter), 0);
  EXPECT_EQ(t.pool.stats().allocations, 3);
}

TEST(Pool, PeaksRestartFromWhatIsHeld) {
  TestPool t(1 << 20);
  const std::int64_t a = t.allocate(256), b = t.allocate(1024);
  t.free(b);
  t.pool.reset_peak();
  EXPECT_EQ(t.pool.stats().peak_live, 256);
  EXPECT_EQ(t.pool.stats().peak_reserved, 256);
  t.free(a);
  EXPECT_EQ(t.pool.stats().peak_live, 256);
}

TEST(Pool, RefusesHugeAndNegativeRequests) {
  TestPool t(1 << 20);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t bytes :
       {kLargest, kLargest - 255, kLargest / 2, (std::int64_t{1} << 20) + 1})
    EXPECT_THROW(t.allocate(bytes), OutOfBudget) << bytes;
  EXPECT_EQ(error_text([&] { t.allocate(-1); }), "pool: asked for -1 bytes");
  EXPECT_EQ(t.pool.stats().live, 0);
  EXPECT_EQ(t.allocate(1 << 20), 0) << "the whole range";
  EXPECT_THROW(t.allocate(0), OutOfBudget) << "even nothing takes a granule";
}

TEST(Pool, AlignmentIsAPowerOfTwo) {
  EXPECT_EQ(error_text([] { Pool(std::make_unique<FakeRange>(1024), 48); }),
            "pool: alignment must be a power of two, got 48");
  EXPECT_THROW(Pool(std::make_unique<FakeRange>(1024), 0), Error);
}

TEST(Pool, SaysWhyItRefused) {
  TestPool t(4096);
  const UnitScope unit("features.3");
  std::int64_t first = 0;
  {
    const OpScope op("conv2d");
    first = t.allocate(1000, Category::activation);
    t.allocate(1500, Category::parameter);
    t.allocate(256, Category::gradient);
  }
  t.free(first);
  const OpScope op("linear");
  try {
    t.allocate(2000, Category::workspace);
    FAIL() << "2000 bytes do not fit";
  } catch (const OutOfBudget& error) {
    EXPECT_STREQ(
        error.what(),
        "out of budget: linear in features.3 asked for 2000 bytes of workspace; live 1792, "
        "reserved 2816, limit 4096, largest hole 1280; held: parameter 1536, gradient 256; "
        "biggest: 1536 bytes of parameter (conv2d in features.3), 256 bytes of gradient "
        "(conv2d in features.3)");
    EXPECT_EQ(error.asked, 2000);
    EXPECT_EQ(error.stats.live, 1792);
    EXPECT_EQ(error.stats.reserved, 2816);
    EXPECT_EQ(error.stats.limit, 4096);
    EXPECT_EQ(error.largest_hole, 1280);
    ASSERT_EQ(error.biggest.size(), 2U);
    EXPECT_EQ(error.biggest[0].asked, 1500);
    EXPECT_EQ(error.biggest[0].granted, 1536);
    EXPECT_EQ(error.biggest[0].category, Category::parameter);
  }
  EXPECT_EQ(t.allocate(1280), 2816) << "the refusal changed nothing";
}

/// A request (bytes >= 0) or the freeing of the request of that number.
struct Step {
  std::int64_t bytes = -1;
  std::size_t freed = 0;
};

std::vector<Step> random_steps(std::uint64_t seed, int n) {
  RandomStream random(seed);
  std::vector<Step> steps;
  std::vector<std::size_t> held;
  std::size_t requests = 0;
  for (int i = 0; i < n; ++i) {
    if (!held.empty() && random.below(100) < 45) {
      const std::size_t pick = random.below(held.size());
      steps.push_back({-1, held[pick]});
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(pick));
    } else {
      // Sizes over four orders of magnitude, small ones often.
      const std::uint64_t bound = std::uint64_t{1} << (4 + 3 * random.below(5));
      steps.push_back({static_cast<std::int64_t>(random.below(bound)), 0});
      held.push_back(requests++);
    }
  }
  return steps;
}

struct Replay {
  std::vector<std::int64_t> offsets;
  std::int64_t peak = 0;
};

Replay replay(const std::vector<Step>& steps, std::int64_t limit) {
  TestPool t(limit);
  Replay run;
  for (const Step& step : steps)
    if (step.bytes >= 0)
      run.offsets.push_back(t.allocate(step.bytes));
    else
      t.free(run.offsets[step.freed]);
  run.peak = t.pool.stats().peak_reserved;
  return run;
}

/// Best fit over a plain list of pieces: finds holes anew on every request.
class NaiveBestFit {
 public:
  struct Piece {
    std::int64_t offset, bytes;
  };
  std::int64_t allocate(std::int64_t bytes) {
    const std::int64_t size = std::max<std::int64_t>(kGranule, (bytes + 255) / 256 * 256);
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
    std::int64_t end = 0;
    std::optional<Piece> best;
    for (const Piece& piece : pieces) {
      const std::int64_t hole = piece.offset - end;
      if (hole >= size && (!best || hole < best->bytes)) best = Piece{end, hole};
      end = piece.offset + piece.bytes;
    }
    pieces.push_back({best ? best->offset : end, size});
    return pieces.back().offset;
  }
  void free(std::int64_t offset) {
    std::erase_if(pieces, [&](const Piece& piece) { return piece.offset == offset; });
  }
  std::vector<Piece> pieces;
};

class PoolSequence : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(PoolSequence, IsBestFitWithoutOverlap) {
  TestPool t(std::int64_t{1} << 40);
  NaiveBestFit naive;
  std::vector<std::int64_t> offsets;
  std::int64_t peak_live = 0, peak_reserved = 0;
  for (const Step& step : random_steps(GetParam(), 1500)) {
    if (step.bytes >= 0) {
      offsets.push_back(t.allocate(step.bytes));
      ASSERT_EQ(offsets.back(), naive.allocate(step.bytes));
    } else {
      t.free(offsets[step.freed]);
      naive.free(offsets[step.freed]);
    }
    std::int64_t live = 0, reserved = 0;
    for (std::size_t i = 0; i < naive.pieces.size(); ++i) {
      const auto& a = naive.pieces[i];
      live += a.bytes;
      reserved = std::max(reserved, a.offset + a.bytes);
      for (std::size_t j = 0; j < i; ++j) {
        const auto& b = naive.pieces[j];
        ASSERT_TRUE(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset)
            << a.offset << " and " << b.offset << " overlap";
      }
    }
    peak_live = std::max(peak_live, live);
    peak_reserved = std::max(peak_reserved, reserved);
    const PoolStats stats = t.pool.stats();
    ASSERT_EQ(stats.live, live);
    ASSERT_EQ(stats.reserved, reserved);
    ASSERT_EQ(stats.peak_live, peak_live);
    ASSERT_EQ(stats.peak_reserved, peak_reserved);
  }
}

// What makes a plan exact: a peak found without a limit is enough, and nothing less is.
TEST_P(PoolSequence, AddressesDoNotDependOnTheLimit) {
  const std::vector<Step> steps = random_steps(GetParam(), 4000);
  const Replay unlimited = replay(steps, std::int64_t{1} << 40);
  const Replay exact = replay(steps, unlimited.peak);
  EXPECT_EQ(exact.offsets, unlimited.offsets);
  EXPECT_EQ(exact.peak, unlimited.peak);
  try {
    replay(steps, unlimited.peak - kGranule);
    FAIL() << "one granule less than the peak was enough";
  } catch (const OutOfBudget& error) {
    EXPECT_EQ(error.stats.limit, unlimited.peak - kGranule);
    EXPECT_LT(error.largest_hole, error.asked);
    EXPECT_LE(error.stats.live, error.stats.reserved);
    EXPECT_EQ(error.stats.reserved + (error.asked + 255) / 256 * 256, unlimited.peak);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, PoolSequence, ::testing::Range<std::uint64_t>(1, 9));

}  // namespace
}  // namespace nf::test
