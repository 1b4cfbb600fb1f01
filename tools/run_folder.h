// Where a run leaves its files: never where another run left its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nf::tools {

/// A folder of its own for one run. If nothing was put into a folder that it made, it goes again
/// when this object does.
class RunFolder {
 public:
  /// Makes runs/NAME-TIME, or with a number behind where that exists already.
  static RunFolder fresh(const std::string& name);
  /// Makes or takes this one. Throws Error where it holds a run, finished or not, unless it may
  /// `overwrite`: then that run's files are removed, if it is not going on.
  static RunFolder given(const std::filesystem::path& path, bool overwrite);

  /// Takes one whose run is to go on.
  static RunFolder held(const std::filesystem::path& path) { return {path, false}; }

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

/// What config.toml does not tell of how a run was begun.
struct StartedRun {
  std::string command;  ///< train or compare
  std::string data;     ///< an absolute path, or "generated"
  std::string cache_folder;
  std::vector<std::int64_t> budgets;
  std::vector<std::uint64_t> seeds;
};

/// run.json.
void write_started_run(const std::filesystem::path& folder, const StartedRun& run);
/// Throws DataError for a file that is damaged, Error where there is none.
StartedRun read_started_run(const std::filesystem::path& folder);

}  // namespace nf::tools
