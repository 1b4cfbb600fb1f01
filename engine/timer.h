// Wall time.
#pragma once

#include <chrono>

namespace nf {

/// Counts from its making, by a clock that is never set back.
class Timer {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace nf
