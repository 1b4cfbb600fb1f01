#include "nn/data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>
#include <string>
#include <system_error>

#include "engine/error.h"
#include "engine/shape.h"

namespace nf::nn {
namespace {

constexpr std::int64_t kInputBytes = 64 << 10;
constexpr std::int64_t kFirstChunk = 1 << 20;

/// Bytes of a file in order, inflated where the file begins as gzip does.
class ByteReader {
 public:
  explicit ByteReader(const std::filesystem::path& path)
      : name_(path.string()), input_(static_cast<std::size_t>(kInputBytes)) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored))
      fail_data("{}: an IDX file is expected, this is a folder", name_);
    file_.open(path, std::ios::binary);
    if (!file_) fail_data("{}: the file cannot be opened (missing or not readable)", name_);
    fill();
    gzip_ = available_ >= 2 && input_[0] == 0x1f && input_[1] == 0x8b;
    // 16: expect the gzip wrapper and check its checksum.
    if (gzip_ && inflateInit2(&stream_, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~ByteReader() {
    if (gzip_) inflateEnd(&stream_);
  }
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  /// Reads up to `bytes` bytes; fewer only at the end of the stream.
  std::int64_t read(std::uint8_t* out, std::int64_t bytes) {
    std::int64_t done = 0;
    while (done < bytes) {
      const std::int64_t step =
          gzip_ ? inflate_some(out + done, bytes - done) : copy_some(out + done, bytes - done);
      if (step < 0) break;
      done += step;
      offset_ += step;
    }
    return done;
  }

  /// Bytes delivered so far, of the uncompressed stream.
  std::int64_t offset() const { return offset_; }
  const std::string& name() const { return name_; }

 private:
  /// Refills an empty input buffer; false at the end of the file.
  bool fill() {
    if (available_ > 0) return true;
    file_.read(reinterpret_cast<char*>(input_.data()), kInputBytes);
    if (file_.bad()) fail_data("{}: reading failed after byte {}", name_, offset_);
    position_ = 0;
    available_ = static_cast<std::int64_t>(file_.gcount());
    return available_ > 0;
  }

  void consume(std::int64_t bytes) {
    position_ += bytes;
    available_ -= bytes;
  }

  std::int64_t copy_some(std::uint8_t* out, std::int64_t bytes) {
    if (!fill()) return -1;
    const std::int64_t step = std::min(bytes, available_);
    std::memcpy(out, input_.data() + position_, static_cast<std::size_t>(step));
    consume(step);
    return step;
  }

  std::int64_t inflate_some(std::uint8_t* out, std::int64_t bytes) {
    const bool more = fill();
    if (member_done_) {
      if (!more) return -1;
      // A gzip file may hold several members; anything else fails as a bad header below.
      inflateReset(&stream_);
      member_done_ = false;
    }
    if (!more)
      fail_data("{}: the gzip data is truncated: it ends after byte {} of the uncompressed stream",
                name_, offset_);
    stream_.next_in = input_.data() + position_;
    stream_.avail_in = static_cast<uInt>(available_);
    const auto room =
        static_cast<uInt>(std::min<std::int64_t>(bytes, std::numeric_limits<uInt>::max()));
    stream_.next_out = out;
    stream_.avail_out = room;
    const int status = inflate(&stream_, Z_NO_FLUSH);
    const std::int64_t produced = room - stream_.avail_out;
    consume(available_ - stream_.avail_in);
    if (status == Z_MEM_ERROR) throw std::bad_alloc();
    if (status != Z_OK && status != Z_STREAM_END)
      fail_data("{}: the gzip data is broken at byte {} of the uncompressed stream: {}", name_,
                offset_ + produced, stream_.msg ? stream_.msg : "it asks for a dictionary");
    member_done_ = status == Z_STREAM_END;
    return produced;
  }

  std::string name_;
  std::ifstream file_;
  std::vector<std::uint8_t> input_;
  std::int64_t position_ = 0;
  std::int64_t available_ = 0;
  std::int64_t offset_ = 0;
  bool gzip_ = false;
  bool member_done_ = false;
  z_stream stream_{};
};

std::vector<std::int64_t> read_extents(ByteReader& reader) {
  std::array<std::uint8_t, 4> word{};
  const auto read_word = [&] {
    if (reader.read(word.data(), 4) != 4)
      fail_data("{}: the IDX header is truncated: the stream ends at byte {}", reader.name(),
                reader.offset());
  };
  read_word();
  if (word[0] != 0 || word[1] != 0)
    fail_data("{}: byte 0: an IDX file begins with 00 00, this one with {:02x} {:02x}",
              reader.name(), word[0], word[1]);
  if (word[2] != 0x08)
    fail_data("{}: byte 2: the type must be 0x08 (unsigned bytes), it is {:#04x}", reader.name(),
              word[2]);
  if (word[3] < 1 || word[3] > Shape::kMaxRank)
    fail_data("{}: byte 3: the rank must be 1 to {}, it is {}", reader.name(), Shape::kMaxRank,
              word[3]);
  std::vector<std::int64_t> extents(word[3]);
  for (auto& extent : extents) {
    read_word();
    extent = std::int64_t{word[0]} << 24 | word[1] << 16 | word[2] << 8 | word[3];
  }
  return extents;
}

}  // namespace

IdxFile read_idx(const std::filesystem::path& path) {
  ByteReader reader(path);
  IdxFile file;
  file.extents = read_extents(reader);
  const std::int64_t begin = reader.offset();
  std::int64_t bytes = 1;
  bool overflow = false;
  for (const std::int64_t extent : file.extents)
    overflow |= __builtin_mul_overflow(bytes, extent, &bytes);
  if (overflow || bytes > std::numeric_limits<std::int64_t>::max() - begin)
    fail_data("{}: byte 4: the product of the extents must fit in 63 bits, they are {}",
              reader.name(), Shape(file.extents).str());

  // Doubles what has been read, so that a lying header costs no memory.
  std::int64_t have = 0;
  while (have < bytes) {
    const std::int64_t target = std::min(bytes, have + std::max(have, kFirstChunk));
    file.data.reserve(static_cast<std::size_t>(target));
    file.data.resize(static_cast<std::size_t>(target));
    have += reader.read(file.data.data() + have, target - have);
    if (have < target)
      fail_data("{}: the data is truncated: extents {} need {} bytes, the stream ends at byte {}",
                reader.name(), Shape(file.extents).str(), begin + bytes, reader.offset());
  }
  // Looking past the end also verifies the checksum of a gzip stream.
  std::uint8_t extra = 0;
  if (reader.read(&extra, 1) != 0)
    fail_data("{}: extents {} end at byte {}, but more data follows (value {})", reader.name(),
              Shape(file.extents).str(), begin + bytes, extra);
  return file;
}

}  // namespace nf::nn
