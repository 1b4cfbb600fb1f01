// Errors that the whole engine throws, and the check macro that throws them.
#pragma once

#include <fmt/core.h>

#include <string>

#include "kernels/error.h"

namespace nf {

/// Data from outside (a file, a cache chunk, a configuration) that is not what it should be.
class DataError : public Error {
 public:
  using Error::Error;
};

/// A training whose loss, gradient or norm is no longer finite. To train again comes to the same.
class Diverged : public Error {
 public:
  using Error::Error;
};

/// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws DataError with a formatted message.
template <typename... Args>
[[noreturn]] void fail_data(fmt::format_string<Args...> format, Args&&... args) {
  throw DataError(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Diverged with a formatted message.
template <typename... Args>
[[noreturn]] void fail_diverged(fmt::format_string<Args...> format, Args&&... args) {
  throw Diverged(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nf

/// Holds in release builds too. The message comes first in what the user sees, so it names the op.
#define NF_CHECK(condition, ...)   \
  do {                             \
    if (!(condition)) [[unlikely]] \
      ::nf::fail(__VA_ARGS__);     \
  } while (false)
