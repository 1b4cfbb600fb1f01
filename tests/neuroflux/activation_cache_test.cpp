#include "neuroflux/activation_cache.h"

#include <gmock/gmock.h>

#include <set>
#include <utility>

#include "neuroflux/checksum.h"
#include "tests/neuroflux/cache_fixture.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ActivationCache = CacheTest;

std::vector<std::int64_t> in_order(std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  return order;
}

TEST_F(ActivationCache, RoundTripsAtOddSizesInEachDtype) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    // Chunks of 5 or 3 samples, where 100 bytes are not whole ones, of one, of the whole set.
    for (const std::int64_t chunk_bytes : {100, 24, 1, 1 << 20})
      for (const std::int64_t count : {1, 2, 29}) {
        SCOPED_TRACE(fmt::format("{} {} {}", to_string(dtype), chunk_bytes, count));
        write(spec(count, chunk_bytes, dtype));
        CacheReader all = reader({.shuffle = false});
        EXPECT_EQ(read(all, 5, 0), in_order(count));
        EXPECT_EQ(all.bytes_read(), count * 12 * size_of(dtype));
      }
}

TEST_F(ActivationCache, ChunksHaveOneToFourMebibytesOfWholeSamples) {
  constexpr std::int64_t kMiB = std::int64_t{1} << 20;
  for (const std::int64_t channels : {1, 3, 48, 64, 200, 511, 512, 513, 700, 1000, 2100}) {
    SCOPED_TRACE(channels);
    CacheSpec made;
    made.name = "default";
    made.count = 50000;
    made.sample_shape = Shape{32, 32, channels};
    const CacheLayout layout = cache_layout(made);
    const std::int64_t bytes = layout.payload(0);
    EXPECT_EQ(bytes, layout.samples_per_chunk * 32 * 32 * channels * 2);
    EXPECT_GE(bytes, kMiB);
    if (layout.sample_bytes <= 4 * kMiB)
      EXPECT_LE(bytes, 4 * kMiB);
    else
      EXPECT_EQ(layout.samples_per_chunk, 1);
    EXPECT_LT((layout.samples_per_chunk - 1) * layout.sample_bytes, kMiB);
  }
}

TEST_F(ActivationCache, ChunksSpanningSeveralBlocksRoundTrip) {
  // 5000 values of 4 bytes: 20,000 bytes, padded to 20,480.
  CacheSpec large = spec(3, 1, DType::f32);
  large.sample_shape = Shape{50, 50, 2};
  write(large, 2);
  EXPECT_EQ(fs::file_size(file(".data")), 3U * 20480U);
  CacheReader all = reader({.window_chunks = 1, .read_ahead_chunks = 1});
  const auto order = read(all, 2, 0);
  EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 3U);
}

TEST_F(ActivationCache, TakesTheBytesItSays) {
  for (const std::int64_t count : {1, 29, 4000}) {
    const CacheSpec made = spec(count);
    write(made, 1000);
    const CacheLayout layout = cache_layout(made);
    EXPECT_EQ(layout.chunks, (count + 3) / 4);
    EXPECT_EQ(layout.data_bytes, layout.chunks * 4096);
    EXPECT_EQ(static_cast<std::int64_t>(fs::file_size(file(".data"))), layout.data_bytes);
    EXPECT_EQ(static_cast<std::int64_t>(fs::file_size(file(".labels"))), count * 4);
    const auto blocks = [](std::uintmax_t bytes) { return (bytes + 4095) / 4096 * 4096; };
    const auto least = fs::file_size(file(".data")) + blocks(fs::file_size(file(".labels"))) +
                       blocks(fs::file_size(file(".json")));
    EXPECT_GE(cache_bytes(made), static_cast<std::int64_t>(least));
    // The bound on the manifest leaves less than its fixed fields and one block.
    EXPECT_LE(cache_bytes(made), static_cast<std::int64_t>(least) + 4096);
  }
}

TEST_F(ActivationCache, EveryEpochHoldsEachSampleOnceInAnOrderOfItsOwn) {
  write(spec(203));
  CacheReader one = reader({.seed = 1, .window_chunks = 3, .read_ahead_chunks = 2});
  CacheReader same = reader({.seed = 1, .window_chunks = 3, .read_ahead_chunks = 5});
  CacheReader other = reader({.seed = 2, .window_chunks = 3});
  const auto first = read(one, 10, 0);
  const auto second = read(one, 10, 1);
  for (const auto& order : {first, second}) {
    EXPECT_EQ(order.size(), 203U);
    EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 203U);
  }
  EXPECT_NE(first, second);
  EXPECT_NE(first, read(other, 10, 0));
  EXPECT_EQ(second, read(same, 10, 1));
  for (const std::int64_t batch : {1, 7, 64, 203, 1000}) EXPECT_EQ(first, read(same, batch, 0));
}

TEST_F(ActivationCache, WindowMixesItsChunksAndNoOthers) {
  // 13 chunks of 4 samples in windows of 3.
  write(spec(52));
  CacheReader windowed = reader({.window_chunks = 3, .read_ahead_chunks = 1});
  const auto order = read(windowed, 8, 0);
  int mixed = 0;
  for (std::size_t first = 0; first < order.size(); first += 12) {
    std::set<std::int64_t> chunks;
    const std::size_t last = std::min(first + 12, order.size());
    for (std::size_t i = first; i < last; ++i) chunks.insert(order[i] / 4);
    EXPECT_EQ(chunks.size(), (last - first) / 4) << "window at " << first;
    mixed += order[first] / 4 != order[first + 1] / 4;
  }
  EXPECT_GT(mixed, 0);
}

TEST_F(ActivationCache, FlippedByteIsRecomputedAndRepaired) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    SCOPED_TRACE(to_string(dtype));
    write(spec(29, 96, dtype));
    const std::int64_t per_chunk = dtype == DType::f32 ? 2 : 4;
    flip(file(".data"), 3 * 4096 + 11);
    std::vector<std::pair<std::int64_t, std::int64_t>> recomputed;
    std::vector<std::string> warnings;
    CacheReader repairing =
        reader({.recompute =
                    [&](std::int64_t first, std::int64_t n, float* out) {
                      recomputed.emplace_back(first, n);
                      fill(first, n, 12, out);
                    },
                .warn = [&](const std::string& text) { warnings.push_back(text); }});
    EXPECT_EQ(read(repairing, 5, 0).size(), 29U);
    EXPECT_THAT(recomputed, ::testing::ElementsAre(std::pair(3 * per_chunk, per_chunk)));
    ASSERT_EQ(warnings.size(), 1U);
    EXPECT_THAT(warnings[0], AllOf(HasSubstr("block1.data, chunk 3 at byte 12288: checksum"),
                                   HasSubstr(fmt::format("samples {} to {} recomputed, rewritten",
                                                         3 * per_chunk, 4 * per_chunk - 1)),
                                   Not(HasSubstr("\n"))));
    EXPECT_EQ(read(repairing, 5, 1).size(), 29U);
    CacheReader strict = reader();
    EXPECT_EQ(read(strict, 5, 2).size(), 29U);
    EXPECT_EQ(recomputed.size(), 1U);
  }
}

TEST_F(ActivationCache, OtherRecomputedValuesUpdateTheManifest) {
  write(spec(29));
  const CacheReadOptions options{.shuffle = false, .recompute = [](auto, auto n, float* out) {
                                   std::fill_n(out, n * 12, 0.5F);
                                 }};
  // Two readers that know the first manifest, each repairing a chunk of its own.
  CacheReader last_chunk = reader(options);
  CacheReader first_chunk = reader(options);
  flip(file(".data"), 7 * 4096);
  last_chunk.start(29, 0);
  EXPECT_EQ(last_chunk.next()->images.back(), 0.5F);
  flip(file(".data"), 0);
  first_chunk.start(4, 0);
  EXPECT_EQ(first_chunk.next()->images.front(), 0.5F);
  CacheReader strict = reader({.shuffle = false});
  strict.start(29, 0);
  const nn::Batch* all = strict.next();
  EXPECT_EQ(all->images.front(), 0.5F);
  EXPECT_EQ(all->images.back(), 0.5F);
}

TEST_F(ActivationCache, FlippedByteWithoutRecomputeIsAnError) {
  write(spec(29));
  flip(file(".data"), 2 * 4096);
  CacheReader strict = reader({.shuffle = false});
  strict.start(8, 0);
  ASSERT_NE(strict.next(), nullptr);  // chunks 0 and 1
  EXPECT_THAT(message_of([&] { strict.next(); }),
              AllOf(HasSubstr("DataError: "), HasSubstr(file(".data").string()),
                    HasSubstr("chunk 2 at byte 8192: checksum "), Not(HasSubstr("\n"))));
  // A half-made batch can't be gone on with; another epoch can be begun.
  EXPECT_THAT(message_of([&] { strict.next(); }), HasSubstr("next without a started epoch"));
  strict.start(8, 0);
  EXPECT_NE(strict.next(), nullptr);
}

TEST_F(ActivationCache, FlippedPaddingHarmsNothing) {
  write(spec(29));
  flip(file(".data"), 96);
  CacheReader strict = reader();
  EXPECT_EQ(read(strict, 8, 0).size(), 29U);
}

TEST_F(ActivationCache, FileCutUnderTheReaderIsRecomputedAndRestored) {
  write(spec(29));
  int calls = 0;
  CacheReader repairing = reader({.recompute = [&](std::int64_t first, std::int64_t n, float* out) {
    ++calls;
    fill(first, n, 12, out);
  }});
  fs::resize_file(file(".data"), 6 * 4096 + 5);
  EXPECT_EQ(read(repairing, 4, 0).size(), 29U);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(read(repairing, 4, 1).size(), 29U);
  EXPECT_EQ(calls, 2);
}

TEST_F(ActivationCache, RepairGoesOnWhenTheFileCantBeWritten) {
  write(spec(8));
  flip(file(".data"), 0);
  std::string warning;
  CacheReader repairing =
      reader({.shuffle = false,
              .recompute = [&](auto first, auto n, float* out) { fill(first, n, 12, out); },
              .warn = [&](const std::string& text) { warning = text; }});
  fs::remove(file(".data"));  // the descriptor stays readable, the name can't be opened
  EXPECT_EQ(read(repairing, 8, 0), in_order(8));
  EXPECT_THAT(warning, HasSubstr("not repaired in the file: file: cannot open"));
}

TEST_F(ActivationCache, ErrorOfRecomputeReachesTheConsumer) {
  write(spec(8));
  flip(file(".data"), 0);
  CacheReader repairing = reader({.recompute = [](auto, auto, float*) { fail("no weights"); }});
  repairing.start(8, 0);
  EXPECT_EQ(message_of([&] { repairing.next(); }), "Error: no weights");
}

TEST_F(ActivationCache, NewCacheReplacesTheOldOne) {
  write(spec(29));
  write(spec(5));
  CacheReader replaced = reader({.shuffle = false});
  EXPECT_EQ(read(replaced, 2, 0), in_order(5));
}

TEST_F(ActivationCache, RemoveTakesThisCacheAway) {
  write(spec(29));
  std::ofstream(folder_ / "block10.json") << "of another cache";
  remove_cache(folder_, "block1");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
  remove_cache(folder_, "block1");
  remove_cache(root_ / "nowhere", "block1");
}

TEST_F(ActivationCache, RestartAndDestructionInMidEpoch) {
  write(spec(203));
  CacheReader restarted = reader({.window_chunks = 2, .read_ahead_chunks = 1});
  const auto whole = read(restarted, 9, 5);
  for (int batches = 0; batches < 20; ++batches) {
    restarted.start(9, 4);
    for (int i = 0; i < batches; ++i) ASSERT_NE(restarted.next(), nullptr);
    if (batches % 5 == 0) {
      EXPECT_EQ(read(restarted, 9, 5), whole);
    }
  }
  restarted.start(9, 6);
  ASSERT_NE(restarted.next(), nullptr);
  CacheReader unread = reader();
  unread.start(1, 0);
}

TEST_F(ActivationCache, ReaderReportsItsBuffers) {
  write(spec(203));
  CacheReader bounded = reader({.window_chunks = 3, .read_ahead_chunks = 2});
  // Labels; checksum, place in the order and slot of each of 51 chunks.
  const std::int64_t kept = 203 * 4 + 3 * 51 * 8;
  // Five buffers, two batches, the order with two windows of 12 samples, what is left of each
  // chunk.
  const std::int64_t epoch = 5 * 4096 + 2 * 10 * (12 * 4 + 4) + (51 + 2 * 12) * 8 + 51 * 8;
  EXPECT_EQ(bounded.host_bytes(), kept);
  bounded.start(10, 0);
  EXPECT_EQ(bounded.host_bytes(), kept + epoch);
  read(bounded, 10, 1);
  EXPECT_EQ(bounded.host_bytes(), kept);
  EXPECT_GE(bounded.wait_seconds(), 0.0);
}

TEST(HashBytes, DependsOnBytesAndSeed) {
  const auto bytes = std::as_bytes(std::span("NeuroFlux", 9));
  // The value that XXH3 publishes for no input and seed 0.
  EXPECT_EQ(hash_bytes({}), 0x2d06800538d394c2ULL);
  EXPECT_NE(hash_bytes(bytes), hash_bytes(bytes.first(8)));
  EXPECT_NE(hash_bytes(bytes), hash_bytes(bytes, 1));
}

}  // namespace
}  // namespace nf
