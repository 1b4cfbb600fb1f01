// Runs the real program as a user would, in a folder of the test's own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace nf::test {

using Arguments = std::vector<std::string>;

/// Appends.
Arguments operator+(Arguments first, const Arguments& second);

struct ProgramResult {
  int exit_code = -1;  ///< 128 + signal for one that a signal ended
  std::string out;
  std::string err;
};

/// A new folder, removed with all that is in it at the end.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& content) const;

  /// Runs the program there and waits for its end.
  ProgramResult run(const Arguments& arguments) const;
  /// Only starts it; `finish` waits.
  pid_t start(const Arguments& arguments) const;
  ProgramResult finish(pid_t process) const;
  /// Looks at `condition` again and again until it holds; false: the program has ended before.
  /// Either way `finish` is still to come. Throws where it takes more than five minutes, and ends
  /// the program.
  bool wait_until(pid_t process, const std::function<bool()>& condition) const;
  /// The same, and the program then stands still until it gets a SIGCONT or is killed.
  bool stop_when(pid_t process, const std::function<bool()>& condition) const;

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
std::vector<std::string> lines_of(const std::string& text);

/// A data set in four IDX files: generated grey images of size x size, `classes` classes.
void write_idx_folder(const std::filesystem::path& folder, std::int64_t train, std::int64_t test,
                      std::int64_t size, std::int64_t classes);

}  // namespace nf::test
