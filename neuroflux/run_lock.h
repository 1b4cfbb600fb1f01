// One run at a time in a folder.
#pragma once

#include <filesystem>

namespace nf {

/// Holds a run folder as long as it lives. It is the folder itself that is locked, so nothing is
/// left in it, and the system lets go of it however the process ends.
class RunLock {
 public:
  /// Makes the folder where there is none. Throws Error naming it where another run holds it, of
  /// this process or another, and where it can't be made or opened. A file system without locks
  /// protects nothing.
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace nf
