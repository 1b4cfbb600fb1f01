#include "neuroflux/storage_queue.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "engine/error.h"
#include "neuroflux/staging.h"
#include "tests/neuroflux/cache_fixture.h"
#include "tests/support/file_size_limit.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Mode = DiskFile::Mode;
using Access = DiskFile::Access;

std::byte byte_of(std::int64_t i) { return static_cast<std::byte>((i * 7 + i / 4096) & 0xff); }

void draw(std::span<std::byte> bytes, std::int64_t first) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = byte_of(first + static_cast<std::int64_t>(i));
}

bool holds(std::span<const std::byte> bytes, std::int64_t first) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != byte_of(first + static_cast<std::int64_t>(i))) return false;
  return true;
}

/// Each engine on files of each kind.
class Queue : public CacheTest,
              public ::testing::WithParamInterface<std::tuple<StorageEngine, Access>> {
 protected:
  void SetUp() override {
    CacheTest::SetUp();
    std::string refusal;
    if (engine() == StorageEngine::uring && make_uring_queue(1, refusal) == nullptr)
      GTEST_SKIP() << refusal;
  }
  static StorageEngine engine() { return std::get<0>(GetParam()); }
  static Access access() { return std::get<1>(GetParam()); }
  static std::unique_ptr<StorageQueue> queue(std::int64_t depth) {
    return make_storage_queue({.engine = engine(), .depth = depth});
  }
  fs::path path() const { return root_ / "file"; }
};

TEST_P(Queue, WritesAndReadsManyRequestsInFlight) {
  constexpr std::int64_t kBytes = 3 * kDiskBlock;
  constexpr std::int64_t kRequests = 50;
  const auto requests = queue(8);
  EXPECT_EQ(requests->engine(), engine());
  StagingBuffers buffers(8, kBytes);
  DiskFile out(path(), Mode::create, access());
  const auto each = [&](auto begin, auto end) {
    std::int64_t begun = 0, ended = 0;
    std::vector<std::int64_t> idle{0, 1, 2, 3, 4, 5, 6, 7};
    while (ended < kRequests) {
      while (begun < kRequests && !idle.empty()) {
        const std::int64_t buffer = idle.back();
        idle.pop_back();
        // Backwards, so that no order of the file helps.
        begin(buffer, kRequests - 1 - begun);
        ++begun;
      }
      const StorageQueue::Done done = requests->wait();
      EXPECT_EQ(done.error, "");
      end(static_cast<std::int64_t>(done.tag));
      idle.push_back(static_cast<std::int64_t>(done.tag));
      ++ended;
    }
  };
  each(
      [&](std::int64_t buffer, std::int64_t place) {
        draw(buffers[buffer], place * kBytes);
        requests->write(out, place * kBytes, buffers[buffer], static_cast<std::uint64_t>(buffer));
      },
      [](std::int64_t) {});
  EXPECT_EQ(requests->in_flight(), 0);
  EXPECT_EQ(out.size(), kRequests * kBytes);
  const DiskFile in(path(), Mode::read, access());
  std::vector<std::int64_t> place_of(8);
  each(
      [&](std::int64_t buffer, std::int64_t place) {
        place_of[static_cast<std::size_t>(buffer)] = place;
        requests->read(in, place * kBytes, buffers[buffer], static_cast<std::uint64_t>(buffer));
      },
      [&](std::int64_t buffer) {
        EXPECT_TRUE(holds(buffers[buffer], place_of[static_cast<std::size_t>(buffer)] * kBytes));
      });
}

TEST_P(Queue, FileThatEndsEarlyIsAnErrorOfThatRequestAlone) {
  const auto requests = queue(2);
  StagingBuffers buffers(2, 2 * kDiskBlock);
  draw(buffers[0], 0);
  DiskFile out(path(), Mode::create);
  out.write_at(0, buffers[0]);
  const DiskFile in(path(), Mode::read, access());
  requests->read(in, 0, buffers[0], 7);
  requests->read(in, kDiskBlock, buffers[1], 8);
  std::map<std::uint64_t, std::string> errors;
  for (int i = 0; i < 2; ++i) {
    const auto done = requests->wait();
    errors[done.tag] = done.error;
  }
  EXPECT_EQ(errors[7], "");
  EXPECT_TRUE(holds(buffers[0], 0));
  EXPECT_EQ(errors[8],
            fmt::format("file: {} ends at byte 8192, 4096 more expected", path().string()));
}

TEST_P(Queue, WriteThatFailsHalfWayNamesWhereAndWhy) {
  const auto requests = queue(1);
  StagingBuffers buffers(1, 2 * kDiskBlock);
  DiskFile out(path(), Mode::create, access());
  const test::FileSizeLimit limit(kDiskBlock + 100);
  requests->write(out, 0, buffers[0], 1);
  EXPECT_EQ(requests->wait().error,
            fmt::format("file: cannot write {} at byte 4196: File too large", path().string()));
}

TEST_P(Queue, WrongDirectionNamesTheSystemsReason) {
  const auto requests = queue(1);
  StagingBuffers buffers(1, kDiskBlock);
  DiskFile out(path(), Mode::create, access());
  requests->read(out, 0, buffers[0], 1);
  EXPECT_EQ(requests->wait().error,
            fmt::format("file: cannot read {} at byte 0: Bad file descriptor", path().string()));
}

TEST_P(Queue, BytesThatDirectAccessRefusesGoThroughTheCache) {
  const auto requests = queue(2);
  std::vector<std::byte> odd(1001);
  draw(odd, 5);
  DiskFile out(path(), Mode::create, access());
  requests->write(out, 5, odd, 1);
  EXPECT_EQ(requests->wait().error, "");
  const DiskFile in(path(), Mode::read, access());
  std::vector<std::byte> got(1001);
  requests->read(in, 5, got, 2);
  EXPECT_EQ(requests->wait().error, "");
  EXPECT_TRUE(holds(got, 5));
}

TEST_P(Queue, DestructionWaitsForWhatIsInFlight) {
  StagingBuffers buffers(4, 64 * kDiskBlock);
  DiskFile out(path(), Mode::create, access());
  {
    const auto requests = queue(4);
    for (std::int64_t i = 0; i < 4; ++i) {
      draw(buffers[i], i * 64 * kDiskBlock);
      requests->write(out, i * 64 * kDiskBlock, buffers[i], static_cast<std::uint64_t>(i));
    }
  }
  const DiskFile in(path(), Mode::read);
  std::vector<std::byte> all(4 * 64 * kDiskBlock);
  in.read_at(0, all);
  EXPECT_TRUE(holds(all, 0));
}

TEST_P(Queue, WrongUseIsAnError) {
  const auto requests = queue(1);
  EXPECT_THAT(message_of([&] { requests->wait(); }), HasSubstr("nothing is in flight"));
  StagingBuffers buffers(2, kDiskBlock);
  DiskFile out(path(), Mode::create, access());
  requests->write(out, 0, buffers[0], 1);
  EXPECT_THAT(message_of([&] { requests->write(out, 0, buffers[1], 2); }),
              HasSubstr("1 requests are in flight, 1 may be"));
  EXPECT_EQ(requests->wait().tag, 1U);
  EXPECT_THAT(message_of([&] { queue(0); }), HasSubstr("depth must be in [1, 64], got 0"));
  EXPECT_THAT(message_of([&] { queue(65); }), HasSubstr("got 65"));
}

INSTANTIATE_TEST_SUITE_P(
    Storage, Queue,
    ::testing::Combine(::testing::Values(StorageEngine::threads, StorageEngine::uring),
                       ::testing::Values(Access::buffered, Access::direct)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param) == StorageEngine::uring ? "Uring" : "Threads") +
             (std::get<1>(test.param) == Access::direct ? "Direct" : "Buffered");
    });

/// Of a file's pages, those that lie in the system's page cache.
std::int64_t resident_pages(const fs::path& path) {
  const DiskFile file(path, Mode::read);
  const auto bytes = static_cast<std::size_t>(file.size());
  void* const map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (map == MAP_FAILED) return -1;
  std::vector<unsigned char> pages((bytes + kDiskBlock - 1) / kDiskBlock);
  const int status = ::mincore(map, bytes, pages.data());
  ::munmap(map, bytes);
  if (status != 0) return -1;
  return std::count_if(pages.begin(), pages.end(), [](unsigned page) { return (page & 1U) != 0; });
}

using PageCache = CacheTest;

TEST_F(PageCache, ForgetsAFileThatWasJustWritten) {
  const auto written = [&](const char* name) {
    DiskFile file(root_ / name, Mode::create);
    file.write_at(0, std::vector<std::byte>(64 * kDiskBlock));
    return file;
  };
  // Not all file systems let go of pages, and some have none.
  DiskFile probe = written("probe");
  if (resident_pages(root_ / "probe") != 64) GTEST_SKIP() << "files here are not in the page cache";
  probe.sync();
  ::posix_fadvise(probe.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  if (resident_pages(root_ / "probe") != 0) GTEST_SKIP() << "this file system keeps its pages";
  DiskFile file = written("file");
  ASSERT_EQ(resident_pages(root_ / "file"), 64);
  file.forget_pages();
  EXPECT_EQ(resident_pages(root_ / "file"), 0);
}

using Transfer = CacheTest;

TEST_F(Transfer, GoesOnAfterSignalsShortMovesAndABusySystem) {
  const DiskFile file(root_ / "file", Mode::create);
  std::vector<std::byte> bytes(100);
  StorageTransfer transfer(file, 1000, std::span<const std::byte>(bytes), 3);
  EXPECT_FALSE(transfer.answered(-EINTR));
  EXPECT_FALSE(transfer.answered(-EAGAIN));
  EXPECT_EQ(transfer.offset(), 1000);
  EXPECT_FALSE(transfer.answered(60));
  EXPECT_EQ(transfer.offset(), 1060);
  EXPECT_EQ(transfer.data(), bytes.data() + 60);
  EXPECT_EQ(transfer.size(), 40U);
  EXPECT_TRUE(transfer.answered(40));
  EXPECT_EQ(transfer.error(), "");
}

TEST_F(Transfer, SystemThatStaysBusyOrMovesNothingHasFailed) {
  const DiskFile file(root_ / "file", Mode::create);
  std::vector<std::byte> bytes(100);
  StorageTransfer busy(file, 8, std::span<const std::byte>(bytes), 3);
  int answers = 1;
  while (!busy.answered(-EAGAIN)) ++answers;
  EXPECT_EQ(answers, 1000);
  EXPECT_THAT(busy.error(), HasSubstr("at byte 8: Resource temporarily unavailable"));
  StorageTransfer stuck(file, 8, std::span<const std::byte>(bytes), 3);
  EXPECT_TRUE(stuck.answered(0));
  EXPECT_THAT(stuck.error(), AllOf(HasSubstr("cannot write"), HasSubstr("Input/output error")));
  // Buffered from the start: there is nothing to fall back to.
  StorageTransfer invalid(file, 8, std::span<const std::byte>(bytes), 3);
  EXPECT_TRUE(invalid.answered(-EINVAL));
  EXPECT_THAT(invalid.error(), HasSubstr("Invalid argument"));
}

TEST_F(Transfer, FallsBackFromDirectAccessOnce) {
  const DiskFile file(root_ / "file", Mode::create, Access::direct);
  if (!file.direct()) GTEST_SKIP() << "this file system has no direct access";
  std::vector<std::byte> bytes(100);
  StorageTransfer transfer(file, 8, std::span<const std::byte>(bytes), 3);
  EXPECT_FALSE(transfer.answered(-EINVAL));
  EXPECT_FALSE(file.direct());
  EXPECT_TRUE(transfer.answered(-EINVAL));
  EXPECT_THAT(transfer.error(), HasSubstr("Invalid argument"));
}

TEST_F(Transfer, DirectAccessIsKeptWhereItIsAllowed) {
  const DiskFile file(root_ / "file", Mode::create, Access::direct);
  if (!file.direct()) GTEST_SKIP() << "this file system has no direct access";
  StagingBuffers buffers(1, kDiskBlock);
  StorageTransfer transfer(file, 0, std::span<const std::byte>(buffers[0]), 3);
  transfer_now(transfer);
  EXPECT_EQ(transfer.error(), "");
  EXPECT_TRUE(file.direct());
}

}  // namespace
}  // namespace nf
