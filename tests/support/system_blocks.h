// Counts what a program makes by `operator new`.
#pragma once

#include <cstdint>

namespace nf::test {

/// Calls of `operator new` so far, by any thread; a program that links this has its own. Always 0
/// under AddressSanitizer, which needs its own.
std::int64_t blocks_from_system();

/// Those of so many runs of `step`.
template <typename Step>
std::int64_t blocks_of(int runs, const Step& step) {
  const std::int64_t before = blocks_from_system();
  for (int i = 0; i < runs; ++i) step();
  return blocks_from_system() - before;
}

}  // namespace nf::test
