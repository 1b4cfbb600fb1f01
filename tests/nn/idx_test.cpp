#include "nn/data/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <fstream>
#include <string>
#include <system_error>

#include "engine/error.h"

namespace nf::nn {
namespace {

using Bytes = std::vector<std::uint8_t>;

/// A folder of this process alone: tests may run side by side.
class TempFolder {
 public:
  TempFolder()
      : path_(std::filesystem::path(::testing::TempDir()) / ("idx-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::filesystem::path write_file(const std::string& name, const Bytes& bytes) {
  static const TempFolder folder;
  const std::filesystem::path path = folder.path() / name;
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return path;
}

Bytes gzip(const Bytes& bytes) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes packed(deflateBound(&stream, bytes.size()));
  stream.next_in = const_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

Bytes idx_bytes(const std::vector<std::uint32_t>& extents, const Bytes& data) {
  Bytes bytes{0, 0, 8, static_cast<std::uint8_t>(extents.size())};
  for (const std::uint32_t extent : extents)
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::uint8_t>(extent >> shift));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

Bytes counting(std::size_t count) {
  Bytes data(count);
  for (std::size_t i = 0; i < count; ++i) data[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
  return data;
}

/// Reading must fail with a one-line DataError that names the file and holds every given part.
void expect_damage(const std::string& name, const Bytes& bytes,
                   const std::vector<std::string>& parts) {
  SCOPED_TRACE(name);
  const auto path = write_file(name, bytes);
  try {
    read_idx(path);
    ADD_FAILURE() << "damage was not noticed";
  } catch (const DataError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_THAT(message, ::testing::HasSubstr(path.string()));
    for (const std::string& part : parts) EXPECT_THAT(message, ::testing::HasSubstr(part));
  }
}

class IdxRoundTrip : public ::testing::TestWithParam<std::vector<std::uint32_t>> {};

TEST_P(IdxRoundTrip, RawAndGzipByContentNotByName) {
  std::size_t count = 1;
  for (const std::uint32_t extent : GetParam()) count *= extent;
  const Bytes data = counting(count);
  const Bytes raw = idx_bytes(GetParam(), data);
  // Names that lie about the content.
  for (const auto& path : {write_file("raw.gz", raw), write_file("packed", gzip(raw))}) {
    const IdxFile file = read_idx(path);
    EXPECT_EQ(file.extents, std::vector<std::int64_t>(GetParam().begin(), GetParam().end()));
    EXPECT_EQ(file.data, data);
  }
}

INSTANTIATE_TEST_SUITE_P(Extents, IdxRoundTrip,
                         ::testing::Values(std::vector<std::uint32_t>{1},
                                           std::vector<std::uint32_t>{5, 3, 2},
                                           std::vector<std::uint32_t>{0, 28, 28},
                                           std::vector<std::uint32_t>{1, 1, 1, 1, 1, 2},
                                           // More than the reader's buffers and first chunk.
                                           std::vector<std::uint32_t>{1367, 41, 47}));

TEST(Idx, ReadsSeveralGzipMembersAsOneStream) {
  const Bytes data = counting(1000);
  const Bytes raw = idx_bytes({1000}, data);
  Bytes packed = gzip({raw.begin(), raw.begin() + 300});
  const Bytes rest = gzip({raw.begin() + 300, raw.end()});
  packed.insert(packed.end(), rest.begin(), rest.end());
  EXPECT_EQ(read_idx(write_file("members", packed)).data, data);
}

TEST(Idx, MissingFileAndFolderAreNamed) {
  const auto folder = std::filesystem::path(::testing::TempDir());
  for (const auto& path : {folder / "no-such-file", folder}) {
    try {
      read_idx(path);
      ADD_FAILURE() << path << " was read";
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(path.string()));
    }
  }
}

TEST(Idx, WrongHeaderIsTold) {
  expect_damage("empty", {}, {"header is truncated", "byte 0"});
  expect_damage("short-magic", {0, 0, 8}, {"header is truncated", "byte 3"});
  expect_damage("short-extents", {0, 0, 8, 2, 0, 0, 0, 1, 0}, {"header is truncated", "byte 9"});
  expect_damage("magic", {'P', 'N', 8, 1, 0, 0, 0, 0}, {"byte 0", "50 4e"});
  expect_damage("type", {0, 0, 0x0d, 1, 0, 0, 0, 0}, {"byte 2", "0x08", "0x0d"});
  expect_damage("rank-zero", {0, 0, 8, 0, 1}, {"byte 3", "is 0"});
  expect_damage("rank-seven", {0, 0, 8, 7}, {"byte 3", "is 7"});
}

TEST(Idx, EveryTruncationIsTold) {
  const Bytes raw = idx_bytes({3, 4, 5}, counting(60));
  for (std::size_t size = 0; size < raw.size(); ++size)
    expect_damage("cut", {raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(size)},
                  {"truncated", "byte " + std::to_string(size)});
  const Bytes packed = gzip(raw);
  // A stream cut before its second byte is not recognised as gzip: it is a wrong header instead.
  for (std::size_t size = 2; size < packed.size(); ++size)
    expect_damage("cut-gz", {packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size)},
                  {"gzip data is truncated"});
}

TEST(Idx, TrailingBytesAreTold) {
  Bytes raw = idx_bytes({2, 3}, counting(6));
  raw.push_back(77);
  for (const Bytes& bytes : {raw, gzip(raw)})
    expect_damage("trailing", bytes, {"[2,3]", "byte 18", "value 77"});
  Bytes packed = gzip(idx_bytes({2, 3}, counting(6)));
  packed.push_back(77);
  packed.push_back(78);
  expect_damage("garbage-after-gz", packed, {"gzip data is broken", "byte 18", "incorrect header"});
}

TEST(Idx, EveryFlippedBitOfAGzipStreamIsToldOrHarmless) {
  const Bytes data = counting(60);
  const Bytes packed = gzip(idx_bytes({3, 4, 5}, data));
  int told = 0;
  for (std::size_t bit = 16; bit < packed.size() * 8; ++bit) {
    Bytes broken = packed;
    broken[bit / 8] = static_cast<std::uint8_t>(broken[bit / 8] ^ (1U << bit % 8));
    const auto path = write_file("flipped", broken);
    try {
      // Time, level and system in the header carry no data.
      EXPECT_EQ(read_idx(path).data, data) << "bit " << bit;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(path.string()));
      ++told;
    }
  }
  // The body and the trailer (8 bytes) hold all but the 10 bytes of the header.
  EXPECT_GE(told, static_cast<int>(packed.size() - 10) * 8);
}

TEST(Idx, BrokenChecksumIsToldWithItsOffset) {
  Bytes packed = gzip(idx_bytes({3, 4, 5}, counting(60)));
  packed[packed.size() - 8] ^= 1;
  expect_damage("checksum", packed, {"gzip data is broken", "byte 76", "incorrect data check"});
}

TEST(Idx, ExtentsThatOverflowAreTold) {
  expect_damage("overflow", idx_bytes({0xffffffff, 0xffffffff, 0xffffffff}, {1, 2}),
                {"byte 4", "[4294967295,4294967295,4294967295]"});
}

TEST(Idx, ALyingHeaderCostsNoMemory) {
  // 16 TB are promised. A reader that trusts that would pass the peak below, or fail to allocate.
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  const long before = peak();
  for (const Bytes& bytes : {idx_bytes({0x1000, 0x10000, 0x10000}, counting(10)),
                             gzip(idx_bytes({0x1000, 0x10000, 0x10000}, counting(10)))})
    expect_damage("lying", bytes, {"[4096,65536,65536]", "17592186044432 bytes", "byte 26"});
  EXPECT_LT(peak() - before, 16 << 10);
}

}  // namespace
}  // namespace nf::nn
