// Where a run leaves its files: never where another run left its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace nf::tools {

/// A folder of its own for one run. If nothing was put into a folder that it made, it goes again
/// when this object does.
class RunFolder {
 public:
  /// Makes runs/NAME-TIME, or with a number behind where that exists already.
  static RunFolder fresh(const std::string& name);
  /// Makes or takes this one. Throws Error where it holds a run, finished or not, unless it may
  /// `overwrite`: then that run's files are removed.
  static RunFolder given(const std::filesystem::path& path, bool overwrite);

  RunFolder(RunFolder&& other) noexcept;
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::filesystem::path& path() const { return path_; }

 private:
  RunFolder(std::filesystem::path path, bool made) : path_(std::move(path)), made_(made) {}

  std::filesystem::path path_;
  bool made_ = false;
};

}  // namespace nf::tools
