// One request to storage on its way, and what the system's answers make of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "neuroflux/disk_file.h"

namespace nf {

class StorageTransfer {
 public:
  enum class Kind : std::uint8_t { read, write };

  /// A read into `bytes`.
  StorageTransfer(const DiskFile& file, std::int64_t offset, std::span<std::byte> bytes,
                  std::uint64_t tag);
  /// A write of `bytes`.
  StorageTransfer(const DiskFile& file, std::int64_t offset, std::span<const std::byte> bytes,
                  std::uint64_t tag);

  Kind kind() const { return kind_; }
  std::uint64_t tag() const { return tag_; }
  int descriptor() const { return file_->descriptor(); }
  /// What is left to do, at most 1 GiB of it at a time.
  std::int64_t offset() const { return offset_; }
  std::byte* data() const { return bytes_.data(); }
  unsigned size() const;

  /// Takes the answer to a call: bytes moved, or minus errno. False: the rest must be sent again
  /// (a short transfer, a signal, a system that is busy, a file that is buffered from now on).
  bool answered(std::int64_t result);
  /// Names file, byte and reason; empty: all bytes were moved.
  const std::string& error() const { return error_; }

 private:
  Kind kind_;
  const DiskFile* file_;
  std::int64_t offset_;
  std::span<std::byte> bytes_;
  std::uint64_t tag_;
  bool was_direct_;
  int refusals_ = 0;  // in a row, by a busy system
  std::string error_;
};

/// Moves all of it in this thread.
void transfer_now(StorageTransfer& transfer);

}  // namespace nf
