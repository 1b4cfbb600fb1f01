// What a launch that can't be, or a fault of a kernel, throws.
#pragma once

#include <stdexcept>

namespace nf {

/// The message names the kernel, the rule and the values, on one line.
class KernelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace nf
