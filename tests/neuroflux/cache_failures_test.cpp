// What the cache says, and what it leaves behind, when files are damaged or storage refuses.
#include <gmock/gmock.h>
#include <unistd.h>

#include <limits>

#include "tests/neuroflux/cache_fixture.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/small_file_system.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using CacheFailures = CacheTest;
using test::FileSizeLimit;

TEST_F(CacheFailures, FilesThatContradictTheManifestAreErrors) {
  const auto opening = [&] { return message_of([&] { reader(); }); };
  write(spec(29));
  fs::resize_file(file(".data"), 8 * 4096 - 1);
  EXPECT_THAT(opening(), AllOf(HasSubstr("DataError: "), HasSubstr(file(".data").string()),
                               HasSubstr("has 32767 bytes, its manifest says 32768")));
  fs::remove(file(".data"));
  EXPECT_THAT(opening(), AllOf(HasSubstr("DataError: "), HasSubstr("cannot open"),
                               HasSubstr(file(".data").string())));
  write(spec(29));
  flip(file(".labels"), 5);
  EXPECT_THAT(opening(), AllOf(HasSubstr("DataError: "), HasSubstr(file(".labels").string()),
                               HasSubstr("has checksum ")));
  fs::resize_file(file(".labels"), 4);
  EXPECT_THAT(opening(), HasSubstr("has 4 bytes, its manifest says 116"));
  fs::remove(file(".labels"));
  EXPECT_THAT(opening(), AllOf(HasSubstr("DataError: "), HasSubstr("cannot open"),
                               HasSubstr(file(".labels").string())));
}

TEST_F(CacheFailures, DamagedManifestsAreErrors) {
  const auto opening = [&] { return message_of([&] { reader(); }); };
  const auto damaged = AllOf(HasSubstr("DataError: "), HasSubstr(file(".json").string()),
                             HasSubstr("is damaged: "), Not(HasSubstr("\n")));
  EXPECT_THAT(opening(), AllOf(HasSubstr("DataError: "), HasSubstr(file(".json").string()),
                               HasSubstr("No such file")));
  write(spec(29));
  const std::string text = read_file(file(".json"));
  const auto put = [&](const std::string& other) {
    fs::remove(file(".json"));  // ext4 syncs a file that is emptied and written again
    std::ofstream(file(".json")) << other;
  };
  for (std::size_t length = 0; length < text.size(); ++length) {
    put(text.substr(0, length));
    ASSERT_THAT(opening(), damaged) << "cut to " << length;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string flipped = text;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    put(flipped);
    ASSERT_THAT(opening(), damaged) << "flipped at " << i;
  }
  for (const char* other :
       {"garbage\nof two lines", "{}", "[]", "null", "\xff\xfe", "{\"format\":3}"}) {
    put(other);
    EXPECT_THAT(opening(), damaged) << other;
  }
  put(text);
  EXPECT_EQ(opening(), "no error");
}

TEST_F(CacheFailures, ManifestOfAnotherNameIsAnError) {
  write(spec(29));
  for (const char* extension : {".data", ".labels", ".json"})
    fs::rename(file(extension), folder_ / (std::string("block2") + extension));
  EXPECT_THAT(message_of([&] { CacheReader(folder_, "block2", {}); }),
              AllOf(HasSubstr("DataError: "), HasSubstr("is of cache 'block1'")));
}

TEST_F(CacheFailures, ProvenanceMustMatchWhenGiven) {
  write(spec(29));
  EXPECT_EQ(message_of([&] { reader({.provenance = 42}); }), "no error");
  EXPECT_THAT(message_of([&] { reader({.provenance = 43}); }),
              AllOf(HasSubstr("DataError: "), HasSubstr(file(".json").string()),
                    HasSubstr("provenance 000000000000002a, 000000000000002b expected")));
}

TEST_F(CacheFailures, SpecsThatCantBeStoredAreErrors) {
  const auto refused = [](auto change) {
    CacheSpec bad = spec(29);
    change(bad);
    return message_of([&] { cache_bytes(bad); });
  };
  EXPECT_THAT(refused([](CacheSpec& s) { s.name = "../x"; }), HasSubstr("name '../x'"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.name = ""; }), HasSubstr("name ''"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.count = 0; }), HasSubstr("0 samples"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.sample_shape = Shape{3, 2}; }), HasSubstr("[3,2]"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.sample_shape = Shape{3, 0, 2}; }), HasSubstr("[3,0,2]"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.dtype = DType::f64; }), HasSubstr("dtype f64"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.chunk_bytes = 0; }), HasSubstr("chunks of 0 bytes"));
  EXPECT_THAT(refused([](CacheSpec& s) { s.count = std::numeric_limits<std::int64_t>::max(); }),
              HasSubstr("more bytes than can be addressed"));
}

TEST_F(CacheFailures, WrongUseOfTheWriterIsAnErrorThatLeavesNothing) {
  {
    CacheWriter writer(folder_, spec(3));
    const std::vector<float> samples(4 * 12);
    const std::vector<std::int32_t> labels(4);
    EXPECT_THAT(message_of([&] { writer.append(samples.data(), labels.data(), 4); }),
                HasSubstr("append of 4 samples after 0 of 3"));
    writer.append(samples.data(), labels.data(), 2);
    EXPECT_THAT(message_of([&] { writer.close(); }), HasSubstr("close after 2 of 3 samples"));
  }
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(CacheFailures, WriterThatIsNotClosedLeavesNothing) {
  fs::create_directory(folder_);
  {
    CacheWriter writer(folder_, spec(29));
    const std::vector<float> samples(8 * 12);
    const std::vector<std::int32_t> labels(8);
    writer.append(samples.data(), labels.data(), 8);
    EXPECT_TRUE(fs::exists(file(".data")));
    EXPECT_FALSE(fs::exists(file(".json")));
  }
  // The folder was there before.
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(CacheFailures, TooLittleSpaceIsSaidBeforeAnythingIsWritten) {
  // 2^50 samples of 24 bytes: 24 PiB.
  const CacheSpec huge = spec(std::int64_t{1} << 50, 1 << 20);
  EXPECT_THAT(message_of([&] { CacheWriter(folder_, huge); }),
              AllOf(HasSubstr("Error: "), HasSubstr(folder_.string()),
                    HasSubstr(fmt::format("needs {} bytes", cache_bytes(huge))),
                    HasSubstr(" are free"), Not(HasSubstr("\n"))));
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(CacheFailures, RefusedReservationLeavesNothing) {
  const FileSizeLimit limit(3 * 4096);
  EXPECT_THAT(message_of([&] { CacheWriter(folder_, spec(29)); }),
              AllOf(HasSubstr("Error: "), HasSubstr("cannot reserve 32768 bytes for "),
                    HasSubstr(file(".data").string())));
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(CacheFailures, FailedWriteNamesFileAndByteAndEndsTheWriter) {
  {
    CacheWriter writer(folder_, spec(29));
    const std::vector<float> samples(29 * 12);
    const std::vector<std::int32_t> labels(29);
    // The third chunk is cut at half, so its first write is short and its second fails.
    const FileSizeLimit limit(2 * 4096 + 2048);
    EXPECT_THAT(message_of([&] { writer.append(samples.data(), labels.data(), 29); }),
                AllOf(HasSubstr("Error: "), HasSubstr(file(".data").string()),
                      HasSubstr("at byte 10240: File too large")));
    EXPECT_THAT(message_of([&] { writer.append(samples.data(), labels.data(), 0); }),
                HasSubstr("append after a failure"));
    EXPECT_THAT(message_of([&] { writer.close(); }), HasSubstr("close after a failure"));
  }
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(CacheFailures, FullFileSystemIsSaidWithNeedAndHave) {
  const test::SmallFileSystem small(root_ / "small", 64 << 10);
  if (!small.refusal().empty()) GTEST_SKIP() << "no mount: " << small.refusal();
  const CacheSpec large = spec(29 * 4);  // 29 chunks of 4 KiB, labels and manifest
  const fs::path inside = root_ / "small" / "cache";
  EXPECT_THAT(message_of([&] { CacheWriter(inside, large); }),
              AllOf(HasSubstr("Error: "), HasSubstr(inside.string()),
                    HasSubstr(fmt::format("needs {} bytes", cache_bytes(large))),
                    HasSubstr(" are free"), Not(HasSubstr("\n"))));
  EXPECT_TRUE(fs::is_empty(root_ / "small"));
}

TEST_F(CacheFailures, FileSystemThatFillsUpDuringAFillEndsItCleanly) {
  const test::SmallFileSystem small(root_ / "small", 64 << 10);
  if (!small.refusal().empty()) GTEST_SKIP() << "no mount: " << small.refusal();
  const fs::path inside = root_ / "small" / "cache";
  {
    CacheWriter writer(inside, spec(29));
    const std::vector<float> samples(29 * 12);
    const std::vector<std::int32_t> labels(29);
    writer.append(samples.data(), labels.data(), 29);
    // Others take what is left; the manifest has no blocks of its own yet.
    std::ofstream rest(root_ / "small" / "rest", std::ios::binary);
    const std::vector<char> block(4096);
    while (rest.write(block.data(), 4096).flush()) {
    }
    EXPECT_THAT(message_of([&] { writer.close(); }),
                AllOf(HasSubstr("Error: "), HasSubstr((inside / "block1.json.tmp").string()),
                      HasSubstr("No space left on device"), Not(HasSubstr("\n"))));
  }
  EXPECT_FALSE(fs::exists(inside));
  EXPECT_TRUE(fs::exists(root_ / "small" / "rest"));
}

TEST_F(CacheFailures, RepairGoesOnInAFullFileSystem) {
  const test::SmallFileSystem small(root_ / "small", 64 << 10);
  if (!small.refusal().empty()) GTEST_SKIP() << "no mount: " << small.refusal();
  folder_ = root_ / "small" / "cache";
  write(spec(29));
  flip(file(".data"), 2 * 4096);
  std::ofstream rest(root_ / "small" / "rest", std::ios::binary);
  const std::vector<char> block(4096);
  while (rest.write(block.data(), 4096).flush()) {
  }
  // Other values than at first, so that the manifest would have to be written too.
  std::string warning;
  CacheReader repairing =
      reader({.shuffle = false,
              .recompute = [](auto, auto n, float* out) { std::fill_n(out, n * 12, 0.5F); },
              .warn = [&](const std::string& text) { warning = text; }});
  repairing.start(29, 0);
  const nn::Batch* batch = repairing.next();
  EXPECT_EQ(batch->images[8 * 12], 0.5F);
  EXPECT_THAT(warning, AllOf(HasSubstr("samples 8 to 11 recomputed, not repaired in the file: "),
                             HasSubstr("No space left on device")));
  EXPECT_FALSE(fs::exists(folder_ / "block1.json.tmp"));
}

TEST_F(CacheFailures, FolderRemovedWhileReadingIsReadToItsEnd) {
  write(spec(203));
  std::vector<std::string> warnings;
  CacheReader orphan =
      reader({.window_chunks = 2,
              .read_ahead_chunks = 1,
              .recompute = [](auto first, auto n, float* out) { fill(first, n, 12, out); },
              .warn = [&](const std::string& text) { warnings.push_back(text); }});
  orphan.start(9, 0);
  ASSERT_NE(orphan.next(), nullptr);
  fs::remove_all(folder_);
  // The system keeps what is open: later epochs find it too.
  EXPECT_EQ(read(orphan, 9, 1).size(), 203U);
  EXPECT_THAT(warnings, ::testing::IsEmpty());
  EXPECT_THAT(message_of([&] { reader(); }),
              AllOf(HasSubstr("DataError: "), HasSubstr(file(".json").string()),
                    HasSubstr("No such file")));
}

TEST_F(CacheFailures, EveryChunkLostIsRecomputedOnce) {
  write(spec(203));
  int calls = 0;
  CacheReader repairing =
      reader({.window_chunks = 3, .recompute = [&](auto first, auto n, float* out) {
                ++calls;
                fill(first, n, 12, out);
              }});
  fs::resize_file(file(".data"), 0);
  EXPECT_EQ(read(repairing, 10, 0).size(), 203U);
  EXPECT_EQ(calls, 51);
  EXPECT_EQ(read(repairing, 10, 1).size(), 203U);
  EXPECT_EQ(calls, 51);
  CacheReader strict = reader();
  EXPECT_EQ(read(strict, 10, 0).size(), 203U);
}

TEST_F(CacheFailures, FailedManifestLeavesNothing) {
  {
    CacheWriter writer(folder_, spec(2));
    const std::vector<float> samples(2 * 12);
    const std::vector<std::int32_t> labels(2);
    writer.append(samples.data(), labels.data(), 2);
    const FileSizeLimit limit(64);
    EXPECT_THAT(message_of([&] { writer.close(); }), HasSubstr("block1.json.tmp at byte 64"));
  }
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(CacheFailures, FolderThatCantBeMadeIsNamed) {
  std::ofstream(root_ / "plain") << "a file";
  const fs::path below = root_ / "plain" / "cache";
  EXPECT_THAT(message_of([&] { CacheWriter(below, spec(29)); }),
              AllOf(HasSubstr("Error: "), HasSubstr("cannot make folder " + below.string()),
                    HasSubstr("Not a directory"), Not(HasSubstr("\n"))));
  EXPECT_THAT(message_of([&] { CacheReader(below, "block1", {}); }),
              AllOf(HasSubstr("DataError: "), HasSubstr(below.string())));
  EXPECT_THAT(message_of([&] { CacheWriter("/proc/activation_cache", spec(29)); }),
              HasSubstr("Error: activation cache 'block1': cannot make folder /proc/"));
}

TEST_F(CacheFailures, MissingPermissionIsNamed) {
  fs::create_directory(folder_);
  fs::permissions(root_, fs::perms::owner_all | fs::perms::group_exec | fs::perms::others_exec);
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec | fs::perms::group_exec |
                               fs::perms::others_exec);
  constexpr uid_t kNobody = 65534;
  const uid_t self = ::geteuid();
  // Root may write anywhere, so it becomes somebody else for this.
  if (self == 0 && ::seteuid(kNobody) != 0) GTEST_SKIP() << "root that can't change its user";
  const std::string message = message_of([&] { CacheWriter(folder_, spec(29)); });
  if (self == 0) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  fs::permissions(folder_, fs::perms::owner_all);
  EXPECT_THAT(message, AllOf(HasSubstr("Error: "), HasSubstr(file(".data").string()),
                             HasSubstr("Permission denied")));
  EXPECT_TRUE(fs::is_empty(folder_));
}

}  // namespace
}  // namespace nf
