// Files by descriptor and offset: whole reads and writes, reservation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace nf {

/// Owns one descriptor. Failures to read throw DataError, failures to write Error; both name the
/// file, the byte and the system's reason. Calls at different offsets may run in parallel.
class DiskFile {
 public:
  enum class Mode : std::uint8_t { read, write, create };

  DiskFile() = default;
  /// `create` makes an empty file or empties an existing one; `write` needs an existing one.
  DiskFile(std::filesystem::path path, Mode mode);
  DiskFile(DiskFile&& other) noexcept;
  DiskFile& operator=(DiskFile&& other) noexcept;
  ~DiskFile();

  const std::filesystem::path& path() const { return path_; }
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
  /// Asks the system to begin reading; only a hint.
  void prefetch(std::int64_t offset, std::int64_t bytes) const noexcept;
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
