// Files by descriptor and offset: whole reads and writes, reservation, direct access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace nf {

/// What offset, size and address of a request must be a multiple of for it to go past the page
/// cache.
inline constexpr std::int64_t kDiskBlock = 4096;

/// Owns one descriptor. Failures to read throw DataError, failures to write Error; both name the
/// file, the byte and the system's reason. Calls at different offsets may run in parallel.
class DiskFile {
 public:
  enum class Mode : std::uint8_t { read, write, create };
  enum class Access : std::uint8_t { buffered, direct };

  DiskFile() = default;
  /// `create` makes an empty file or empties an existing one; `write` needs an existing one.
  /// `direct` asks the system to go past its page cache; where it refuses, the file is buffered.
  DiskFile(std::filesystem::path path, Mode mode, Access access = Access::buffered);
  DiskFile(DiskFile&& other) noexcept;
  DiskFile& operator=(DiskFile&& other) noexcept;
  ~DiskFile();

  const std::filesystem::path& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  bool direct() const noexcept;
  /// From now on buffered: for requests that direct access does not allow. Any thread may call it.
  void leave_direct() const noexcept;
  /// In bytes.
  std::int64_t size() const;
  /// Fills `bytes` from `offset` on; the file ending earlier is a DataError.
  void read_at(std::int64_t offset, std::span<std::byte> bytes) const;
  /// Writes all of `bytes`.
  void write_at(std::int64_t offset, std::span<const std::byte> bytes);
  /// Makes the file `bytes` long with its blocks allocated, so later writes don't run out of space.
  void reserve(std::int64_t bytes);
  /// Returns when data and length are on storage.
  void sync();
  /// Syncs, and has the system forget the file's pages: what is read next comes from storage.
  void forget_pages();
  /// Lets go of the descriptor; what must be on storage is synced before.
  void close() noexcept;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// All of a file. Throws DataError.
std::string read_file(const std::filesystem::path& path);

/// Bytes that an unprivileged user may still write in `folder`'s file system. Throws Error.
std::int64_t free_bytes(const std::filesystem::path& folder);

}  // namespace nf
