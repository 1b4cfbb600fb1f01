// The base of all that is thrown on purpose. It lies here because kernels use no library: the
// engine adds formatted messages (engine/error.h).
#pragma once

#include <stdexcept>

namespace nf {

/// A broken rule: the message names the operator or file, the rule and the values, on one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace nf
