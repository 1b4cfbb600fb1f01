// The device of the tests of nn.
#pragma once

#include "engine/context.h"

namespace nf::nn {

/// A fresh context of one thread.
inline ContextPtr make_context(std::int64_t budget = std::int64_t{64} << 20) {
  return Context::create({.budget = budget, .threads = 1});
}

}  // namespace nf::nn
