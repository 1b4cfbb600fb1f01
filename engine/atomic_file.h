// Files that are there whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace nf {

/// A new file beside its final name ("NAME.tmp"), which it gets only when all of it is on storage.
/// Until then, and after a failure, what was there under that name stays. One writer at a time.
/// Failures throw Error naming the file and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  /// Without a commit nothing is left behind.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends. Small pieces are gathered, so that a failure may only show in a later call.
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Brings everything to storage and gives the file its name. Nothing may be written after it.
  void commit();

 private:
  void put(const char* data, std::size_t bytes);
  void flush();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::string gathered_;
  std::int64_t written_ = 0;  // bytes that the system has taken
};

/// Writes `text` beside `path`, syncs it and renames it over `path`: old or new, never half.
void replace_file(const std::filesystem::path& path, const std::string& text);

}  // namespace nf
