#include "neuroflux/disk_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "engine/error.h"

namespace nf {
namespace {

// Linux moves at most this much in one call; asking for less than 2^31 also keeps ssize_t simple.
constexpr std::size_t kMostPerCall = std::size_t{1} << 30;

std::string reason(int code) { return std::generic_category().message(code); }

int flags_of(DiskFile::Mode mode) {
  switch (mode) {
    case DiskFile::Mode::read:
      return O_RDONLY;
    case DiskFile::Mode::write:
      return O_WRONLY;
    case DiskFile::Mode::create:
      return O_WRONLY | O_CREAT | O_TRUNC;
  }
  return O_RDONLY;
}

}  // namespace

DiskFile::DiskFile(std::filesystem::path path, Mode mode) : path_(std::move(path)) {
  do {
    descriptor_ = ::open(path_.c_str(), flags_of(mode) | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ >= 0) return;
  const int code = errno;
  if (mode == Mode::read) fail_data("file: cannot open {}: {}", path_.string(), reason(code));
  fail("file: cannot {} {}: {}", mode == Mode::create ? "create" : "open", path_.string(),
       reason(code));
}

DiskFile::DiskFile(DiskFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

DiskFile& DiskFile::operator=(DiskFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

DiskFile::~DiskFile() { close(); }

void DiskFile::close() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

std::int64_t DiskFile::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    const int code = errno;
    fail_data("file: cannot stat {}: {}", path_.string(), reason(code));
  }
  return status.st_size;
}

void DiskFile::read_at(std::int64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got =
        ::pread(descriptor_, bytes.data(), std::min(bytes.size(), kMostPerCall), offset);
    const int code = errno;
    if (got < 0 && code == EINTR) continue;
    if (got < 0)
      fail_data("file: cannot read {} at byte {}: {}", path_.string(), offset, reason(code));
    if (got == 0)
      fail_data("file: {} ends at byte {}, {} more expected", path_.string(), offset, bytes.size());
    offset += got;
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

void DiskFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put =
        ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), kMostPerCall), offset);
    if (put < 0 && errno == EINTR) continue;
    // A write of nothing would loop for ever; POSIX lets a device answer so.
    const int code = put == 0 ? EIO : errno;
    if (put <= 0)
      fail("file: cannot write {} at byte {}: {}", path_.string(), offset, reason(code));
    offset += put;
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

void DiskFile::reserve(std::int64_t bytes) {
  int code = 0;
  do {
    code = ::posix_fallocate(descriptor_, 0, bytes);
  } while (code == EINTR);
  NF_CHECK(code == 0, "file: cannot reserve {} bytes for {}: {}", bytes, path_.string(),
           reason(code));
}

void DiskFile::sync() {
  if (::fsync(descriptor_) == 0) return;
  const int code = errno;
  fail("file: cannot sync {}: {}", path_.string(), reason(code));
}

void DiskFile::prefetch(std::int64_t offset, std::int64_t bytes) const noexcept {
  ::posix_fadvise(descriptor_, offset, bytes, POSIX_FADV_WILLNEED);
}

std::string read_file(const std::filesystem::path& path) {
  const DiskFile file(path, DiskFile::Mode::read);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::int64_t free_bytes(const std::filesystem::path& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) {
    const int code = errno;
    fail("file: cannot ask for the free space of {}: {}", folder.string(), reason(code));
  }
  std::int64_t bytes = 0;
  // A file system that reports more than 63 bits count has room enough.
  if (__builtin_mul_overflow(status.f_bavail, status.f_frsize, &bytes))
    return std::numeric_limits<std::int64_t>::max();
  return bytes;
}

}  // namespace nf
