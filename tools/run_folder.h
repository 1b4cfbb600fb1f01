// Where a run leaves its files: never where another run left its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "neuroflux/run_lock.h"

namespace nf::tools {

/// A folder of its own for one run, locked as long as this object lives. If nothing was put into a
/// folder that it made, it goes again when this object does.
class RunFolder {
 public:
  /// Makes runs/NAME-TIME, or with a number behind where that exists already.
  static RunFolder fresh(const std::string& name);
  /// Makes or takes this one. Throws Error where a run is going on in it, and where it holds one,
  /// finished or not, unless it may `overwrite`: then that run's files are removed.
  static RunFolder given(const std::filesystem::path& path, bool overwrite);

  /// Takes one whose run is to go on. Throws Error where it is going on.
  static RunFolder held(const std::filesystem::path& path) { return {path, false}; }

  RunFolder(RunFolder&& other) noexcept;
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::filesystem::path& path() const { return path_; }
  const std::shared_ptr<const RunLock>& lock() const { return lock_; }

 private:
  RunFolder(const std::filesystem::path& path, bool made);

  std::filesystem::path path_;
  bool made_ = false;
  std::shared_ptr<const RunLock> lock_;
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
