// Ctrl-C and SIGTERM as an exception at a place of our choice, so that no file is left half
// written.
#pragma once

#include <csignal>
#include <string>

namespace nf::tools {

/// While it lives, the first SIGINT or SIGTERM is only noted; a second one ends the program at
/// once.
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
};

}  // namespace nf::tools
