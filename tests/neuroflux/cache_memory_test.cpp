// What caches take of host memory, and that limits on it change nothing but the speed.
#include "neuroflux/host_memory.h"

#include <gmock/gmock.h>

#include <limits>
#include <numeric>

#include "engine/random.h"
#include "neuroflux/memory_caches.h"
#include "neuroflux/run_caches.h"
#include "tests/neuroflux/cache_fixture.h"

namespace nf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using CacheMemory = CacheTest;

constexpr std::int64_t kAll = std::numeric_limits<std::int64_t>::max();

std::int64_t least_reading(const CacheSpec& spec, const CacheReadOptions& options,
                           std::int64_t batch) {
  return CacheReader::kept_host_bytes(spec, CachePlace::disk) +
         CacheReader::epoch_host_bytes(spec, options, batch, CachePlace::disk);
}

TEST_F(CacheMemory, OrderFollowsItsDefinition) {
  // 29 samples in 8 chunks, the last of one; windows of 3 chunks.
  const CacheLayout layout = cache_layout(spec(29));
  for (const std::int64_t epoch : {0, 1, 7}) {
    const std::uint64_t key = random_key(5, Purpose::shuffle, static_cast<std::uint64_t>(epoch));
    RandomStream of_chunks(key, 0);
    const auto chunks = permutation(8, of_chunks);
    std::vector<std::int64_t> expected;
    for (std::size_t window = 0; window < 3; ++window) {
      std::vector<std::int64_t> samples;
      for (std::size_t c = 3 * window; c < std::min<std::size_t>(3 * window + 3, 8); ++c)
        for (std::int64_t s = 4 * chunks[c]; s < std::min<std::int64_t>(4 * chunks[c] + 4, 29); ++s)
          samples.push_back(s);
      RandomStream of_window(key, 1 + window);
      for (const std::int64_t i : permutation(static_cast<std::int64_t>(samples.size()), of_window))
        expected.push_back(samples[static_cast<std::size_t>(i)]);
    }
    CacheOrder order(layout, {.seed = 5, .window_chunks = 3}, epoch);
    EXPECT_EQ(order.chunks(), chunks);
    for (const std::int64_t sample : expected) {
      const auto [position, index] = order.next();
      EXPECT_EQ(4 * chunks[static_cast<std::size_t>(position)] + index, sample);
    }
  }
}

TEST_F(CacheMemory, LeastLimitReadsTheSameAndOneByteLessIsAnError) {
  write(spec(203));
  CacheReader unlimited = reader({.window_chunks = 3});
  const auto expected = read(unlimited, 10, 1);
  const std::int64_t least = least_reading(spec(203), {.window_chunks = 3}, 10);
  for (const std::int64_t more : {0, 4096, 3 * 4096 + 1}) {
    CacheReader limited = reader({.window_chunks = 3, .host_limit_bytes = least + more});
    EXPECT_EQ(read(limited, 10, 1), expected);
    limited.start(10, 0);
    EXPECT_EQ(limited.host_bytes(), least + more / 4096 * 4096);
  }
  CacheReader refused = reader({.window_chunks = 3, .host_limit_bytes = least - 1});
  EXPECT_EQ(message_of([&] { refused.start(10, 0); }),
            fmt::format("Error: activation cache 'block1': reading batches of 10 takes {} bytes "
                        "of host memory at the least, the limit is {}",
                        least, least - 1));
  // Smaller batches need less.
  EXPECT_EQ(read(refused, 9, 1), expected);
}

TEST_F(CacheMemory, SharedAccountCountsReadersAndWritersTogether) {
  const CacheSpec made = spec(203);
  const CacheReadOptions options{.window_chunks = 3};
  const std::int64_t reading = least_reading(made, options, 10);
  const std::int64_t writing = CacheWriter::least_host_bytes(made, CachePlace::disk);
  EXPECT_EQ(writing, 4096 + 203 * 4 + 51 * 8);
  write(made);
  const auto host = std::make_shared<HostMemory>(reading + writing);
  {
    CacheReader shared(folder_, "block1", {.window_chunks = 3, .host = host});
    CacheSpec other = made;
    other.name = "block2";
    CacheWriter writer(folder_, other, {.host_limit_bytes = writing, .host = host});
    EXPECT_EQ(writer.host_bytes(), writing);
    EXPECT_EQ(read(shared, 10, 0).size(), 203U);
    EXPECT_EQ(host->peak(), reading + writing);
    EXPECT_EQ(host->used(), shared.host_bytes() + writing);
    shared.start(9, 0);
    EXPECT_THAT(
        message_of([&] { CacheReader(folder_, "block1", {.window_chunks = 3, .host = host}); }),
        AllOf(HasSubstr("activation cache 'block1': 2036 bytes of host memory are needed"),
              HasSubstr(fmt::format("the limit is {}; the least that does is {}", reading + writing,
                                    host->used() + 2036)),
              Not(HasSubstr("\n"))));
  }
  EXPECT_EQ(host->used(), 0);
  host->reset_peak();
  EXPECT_EQ(host->peak(), 0);
}

TEST_F(CacheMemory, WriterWithoutRoomForOneChunkIsAnError) {
  const std::int64_t least = CacheWriter::least_host_bytes(spec(29), CachePlace::disk);
  EXPECT_EQ(message_of([&] { CacheWriter(folder_, spec(29), {.host_limit_bytes = least - 1}); }),
            fmt::format("Error: activation cache 'block1': writing takes {} bytes of host memory "
                        "at the least, the limit is {}",
                        least, least - 1));
  EXPECT_FALSE(std::filesystem::exists(folder_));
  CacheWriter enough(folder_, spec(29), {.host_limit_bytes = least + 2 * 4096});
  EXPECT_EQ(enough.host_bytes(), least + 2 * 4096);
}

TEST_F(CacheMemory, ChargesMoveAndEnd) {
  const auto host = std::make_shared<HostMemory>(100);
  {
    HostCharge first(host, 60, "first");
    EXPECT_EQ(host->left(), 40);
    EXPECT_EQ(
        message_of([&] { HostCharge(host, 41, "second"); }),
        "Error: second: 41 bytes of host memory are needed beside 60 in use, the limit is 100; the "
        "least that does is 101");
    HostCharge moved = std::move(first);
    EXPECT_EQ(host->used(), 60);
    moved = HostCharge(host, 40, "third");
    EXPECT_EQ(moved.bytes(), 40);
    EXPECT_EQ(host->used(), 40);
  }
  EXPECT_EQ(host->used(), 0);
  EXPECT_EQ(host->peak(), 100);
  EXPECT_EQ(HostMemory().left(), kAll);
}

TEST_F(CacheMemory, AvailableIsTheLesserOfSystemAndGroup) {
  const std::string system = "MemTotal:  100 kB\nMemAvailable:      64 kB\nBuffers: 1 kB\n";
  EXPECT_EQ(available_bytes(system, "", ""), 65536);
  EXPECT_EQ(available_bytes(system, "max\n", "5000\n"), 65536);
  EXPECT_EQ(available_bytes(system, "9000\n", "5000\n"), 4000);
  EXPECT_EQ(available_bytes(system, "5000\n", "9000\n"), 0);
  EXPECT_EQ(available_bytes("", "9000", "5000"), 4000);
  for (const char* damaged : {"", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: -4 kB",
                              "MemAvailable: 99999999999999999999 kB", "MemAvailable:\n4 kB"})
    EXPECT_EQ(available_bytes(damaged, "", ""), kAll) << damaged;
  EXPECT_EQ(available_bytes("", "9000", ""), kAll);
  EXPECT_EQ(available_bytes("", "", "9000"), kAll);
  EXPECT_GT(available_host_bytes(), 0);
}

TEST_F(CacheMemory, CacheInMemoryGivesTheBatchesOfTheOneInFiles) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const std::int64_t count : {1, 29, 203}) {
      SCOPED_TRACE(fmt::format("{} {}", to_string(dtype), count));
      const CacheSpec made = spec(count, 96, dtype);
      write(made);
      const auto host = std::make_shared<HostMemory>();
      MemoryCaches caches(host);
      write_to(CacheWriter(caches.write(made), made, host), made);
      const CacheReadOptions options{.seed = 9, .window_chunks = 3, .host = host};
      CacheReader in_files = reader(options);
      CacheReader in_memory(caches.read("block1"), options);
      for (const std::int64_t epoch : {0, 1}) {
        in_files.start(10, epoch);
        in_memory.start(10, epoch);
        while (const nn::Batch* expected = in_files.next()) {
          const nn::Batch* found = in_memory.next();
          ASSERT_NE(found, nullptr);
          EXPECT_EQ(found->size, expected->size);
          EXPECT_EQ(found->labels, expected->labels);
          EXPECT_EQ(found->images, expected->images);
        }
        EXPECT_EQ(in_memory.next(), nullptr);
      }
    }
}

TEST_F(CacheMemory, CacheInMemoryIsCountedAndLimited) {
  const CacheSpec made = spec(203);
  const std::int64_t cached = 2 * 4096 + 203 * 4;  // 4872 bytes of samples
  EXPECT_EQ(MemoryCaches::host_bytes(made), cached);
  const auto host = std::make_shared<HostMemory>(cached + 10);
  MemoryCaches caches(host);
  {
    const auto unfinished = caches.write(made);
    EXPECT_EQ(host->used(), cached);
  }
  EXPECT_EQ(host->used(), 0);
  EXPECT_THAT(message_of([&] { caches.read("block1"); }),
              HasSubstr("DataError: activation cache 'block1' in memory: there is none"));
  const std::int64_t making = CacheWriter::least_host_bytes(made, CachePlace::memory);
  EXPECT_THAT(message_of([&] { CacheWriter(caches.write(made), made, host); }),
              HasSubstr(fmt::format("the least that does is {}", cached + making)));
  EXPECT_EQ(host->used(), 0);
  EXPECT_THAT(
      message_of([&] { caches.write(spec(std::int64_t{1} << 50)); }),
      AllOf(HasSubstr(fmt::format("needs {} bytes, the host has ", 28 * (std::int64_t{1} << 50))),
            HasSubstr(" available")));
}

TEST_F(CacheMemory, ReaderOutlivesItsCache) {
  MemoryCaches caches;
  write_to(CacheWriter(caches.write(spec(29)), spec(29)), spec(29));
  CacheReader kept(caches.read("block1"), {});
  caches.remove("block1");
  EXPECT_EQ(read(kept, 4, 0).size(), 29U);
  EXPECT_THAT(message_of([&] { caches.read("block1"); }), HasSubstr("there is none"));
}

TEST_F(CacheMemory, ViewsTakeTurnsByEpoch) {
  const auto host = std::make_shared<HostMemory>();
  CacheSpec made = spec(29, 96, DType::f32);
  std::vector<std::unique_ptr<CacheReader>> views;
  for (int view = 0; view < 3; ++view) {
    made.name = fmt::format("view{}", view);
    CacheWriter writer(folder_, made);
    const std::vector<float> samples(29 * 12, static_cast<float>(view));
    writer.append(samples.data(), std::vector<std::int32_t>(29, view).data(), 29);
    writer.close();
    views.push_back(
        std::make_unique<CacheReader>(folder_, made.name, CacheReadOptions{.host = host}));
  }
  ViewedReader viewed(std::move(views));
  EXPECT_EQ(viewed.count(), 29);
  for (const std::int64_t epoch : {0, 1, 2, 3, 7}) {
    viewed.start(29, epoch);
    const nn::Batch* batch = viewed.next();
    EXPECT_EQ(batch->labels.front(), epoch % 3);
    EXPECT_EQ(batch->images.back(), static_cast<float>(epoch % 3));
    if (epoch == 3) {
      EXPECT_EQ(viewed.next(), nullptr);
    }
  }
  // The views that were left in mid-epoch hold no buffers.
  viewed.start(10, 1);
  const std::int64_t one = host->used();
  viewed.start(10, 2);
  EXPECT_EQ(host->used(), one);
}

struct Access {
  StorageEngine engine;
  bool direct;
};
class CacheOnStorage : public CacheTest, public ::testing::WithParamInterface<Access> {};

TEST_P(CacheOnStorage, WritesAndReadsTheSameBits) {
  const CacheStorage storage{.queue = {.engine = GetParam().engine, .depth = 3},
                             .direct = GetParam().direct};
  std::string refusal;
  if (GetParam().engine == StorageEngine::uring && make_uring_queue(1, refusal) == nullptr)
    GTEST_SKIP() << refusal;
  write(spec(203), 7, {.storage = storage, .buffers = 2});
  CacheReader all = reader({.shuffle = false, .storage = storage});
  std::vector<std::int64_t> in_order(203);
  std::iota(in_order.begin(), in_order.end(), 0);
  EXPECT_EQ(read(all, 10, 0), in_order);
  CacheReader shuffled = reader({.window_chunks = 3, .storage = storage});
  CacheReader any = reader({.window_chunks = 3});
  EXPECT_EQ(read(shuffled, 10, 3), read(any, 10, 3));
}

INSTANTIATE_TEST_SUITE_P(Storage, CacheOnStorage,
                         ::testing::Values(Access{StorageEngine::threads, false},
                                           Access{StorageEngine::threads, true},
                                           Access{StorageEngine::uring, false},
                                           Access{StorageEngine::uring, true},
                                           Access{StorageEngine::automatic, true}),
                         [](const auto& test) {
                           std::string name(to_string(test.param.engine));
                           std::erase(name, '_');
                           return name + (test.param.direct ? "Direct" : "Buffered");
                         });

}  // namespace
}  // namespace nf
