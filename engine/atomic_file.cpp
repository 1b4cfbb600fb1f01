#include "engine/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "engine/error.h"

namespace nf {
namespace {

constexpr std::size_t kGathered = std::size_t{256} << 10;
// Linux moves at most 2^31 bytes in one call.
constexpr std::size_t kMostPerCall = std::size_t{1} << 30;

std::string reason(int code) { return std::generic_category().message(code); }

/// Makes a new name itself durable; file systems that refuse this keep it anyway.
void sync_folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  temporary_ += ".tmp";
  do {
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EINTR);
  const int code = errno;
  NF_CHECK(descriptor_ >= 0, "file: cannot create {}: {}", temporary_.string(), reason(code));
}

AtomicFile::~AtomicFile() {
  if (temporary_.empty()) return;
  if (descriptor_ >= 0) ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  if (gathered_.size() + bytes > kGathered) flush();
  if (bytes > kGathered)
    put(from, bytes);
  else
    gathered_.append(from, bytes);
}

void AtomicFile::flush() {
  put(gathered_.data(), gathered_.size());
  gathered_.clear();
}

void AtomicFile::put(const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t put = ::write(descriptor_, data, std::min(bytes, kMostPerCall));
    if (put < 0 && errno == EINTR) continue;
    // A write of nothing would loop for ever; POSIX lets a device answer so.
    const int code = put == 0 ? EIO : errno;
    NF_CHECK(put > 0, "file: cannot write {} at byte {}: {}", temporary_.string(), written_,
             reason(code));
    data += put;
    bytes -= static_cast<std::size_t>(put);
    written_ += put;
  }
}

void AtomicFile::commit() {
  flush();
  const auto require = [&](int result, const char* call) {
    const int code = errno;
    NF_CHECK(result == 0, "file: cannot {} {}: {}", call, temporary_.string(), reason(code));
  };
  require(::fsync(descriptor_), "sync");
  require(::close(std::exchange(descriptor_, -1)), "close");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    fail("file: cannot rename {} to {}: {}", temporary_.string(), path_.string(), reason(code));
  }
  temporary_.clear();
  sync_folder_of(path_);
}

void replace_file(const std::filesystem::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace nf
