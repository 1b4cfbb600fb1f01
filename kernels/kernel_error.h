// What a launch that can't be, or a fault of a kernel, throws.
#pragma once

#include "kernels/error.h"

namespace nf {

/// The message names the kernel, the rule and the values, on one line.
class KernelError : public Error {
 public:
  using Error::Error;
};

}  // namespace nf
