// Ctrl-C and its like as an exception at a place of our choice, so that no file is left half
// written.
#pragma once

#include <csignal>
#include <string>

namespace nf::tools {

/// While it lives, the first SIGINT, SIGTERM or SIGHUP is only noted; a second one ends the program
/// at once. A closed pipe is an error of the write, not a signal that would skip all cleaning up.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// Throws Interrupted, saying during what, when a signal has come.
  static void check(const std::string& during);

 private:
  struct sigaction old_interrupt_ {};
  struct sigaction old_terminate_ {};
  struct sigaction old_hangup_ {};
  struct sigaction old_pipe_ {};
};

}  // namespace nf::tools
