// Comparisons that tests share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/support/op_bench.h"

namespace nf::test {

/// Fails once, naming the worst element. A NaN fails.
inline void expect_close(const Values& actual, const Values& expected, double allowed,
                         const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  std::size_t worst = 0;
  double error = -1;
  for (std::size_t i = 0; i < actual.size() && !std::isnan(error); ++i)
    if (const double e = std::abs(actual[i] - expected[i]); !(e <= error)) {
      error = e;
      worst = i;
    }
  if (actual.empty()) return;
  EXPECT_LE(error, allowed) << what << ", element " << worst << " of " << actual.size() << ": "
                            << actual[worst] << ", expected " << expected[worst];
}

/// What the thrown Error says, "" when nothing was thrown.
template <typename Function>
std::string error_text(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// A way through the CPU backend.
struct CpuPath {
  const char* name;
  DType dtype;
  bool onednn;

  double eps() const { return dtype == DType::f64 ? 0x1p-52 : 0x1p-23; }
  static constexpr std::int64_t kBudget = std::int64_t{64} << 20;
  /// A fresh context with `threads` threads inside operators (0: one per core).
  ContextPtr context(int threads = 0) const {
    return Context::create({.budget = kBudget, .threads = threads, .onednn = onednn});
  }
};
inline constexpr CpuPath kCpuPaths[] = {
    {"OneDnn", DType::f32, true}, {"Eigen", DType::f32, false}, {"Double", DType::f64, false}};

/// A fresh context of the first path, as a user gets it.
inline ContextPtr cpu_context() { return kCpuPaths[0].context(); }

/// Threads of the contexts that are compared with the reference: sums are cut into chunks.
inline constexpr int kThreads = 3;

}  // namespace nf::test
