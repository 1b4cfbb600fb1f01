// What ends the program other than success, and the exit code of each.
#pragma once

#include <string>

#include "engine/error.h"

namespace nf::tools {

enum ExitCode : int { kDone = 0, kFailed = 1, kUsage = 2, kDoesNotFit = 3, kInterrupted = 130 };

/// A command line or configuration that makes no sense.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// The user asked the program to stop.
class Interrupted : public Error {
 public:
  using Error::Error;
};

template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nf::tools
