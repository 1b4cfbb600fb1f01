#include "neuroflux/disk_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "neuroflux/storage_transfer.h"

namespace nf {
namespace {

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

DiskFile::DiskFile(std::filesystem::path path, Mode mode, Access access) : path_(std::move(path)) {
  int direct = access == Access::direct ? O_DIRECT : 0;
  while ((descriptor_ = ::open(path_.c_str(), flags_of(mode) | direct | O_CLOEXEC, 0666)) < 0) {
    if (errno == EINVAL && direct != 0)
      direct = 0;
    else if (errno != EINTR)
      break;
  }
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

bool DiskFile::direct() const noexcept {
  const int flags = ::fcntl(descriptor_, F_GETFL);
  return flags >= 0 && (flags & O_DIRECT) != 0;
}

void DiskFile::leave_direct() const noexcept {
  const int flags = ::fcntl(descriptor_, F_GETFL);
  if (flags >= 0) ::fcntl(descriptor_, F_SETFL, flags & ~O_DIRECT);
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
  StorageTransfer transfer(*this, offset, bytes, 0);
  transfer_now(transfer);
  if (!transfer.error().empty()) throw DataError(transfer.error());
}

void DiskFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) {
  StorageTransfer transfer(*this, offset, bytes, 0);
  transfer_now(transfer);
  if (!transfer.error().empty()) throw Error(transfer.error());
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

void DiskFile::forget_pages() {
  sync();  // pages that still have to be written would stay
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
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
