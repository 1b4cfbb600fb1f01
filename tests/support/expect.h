// Comparisons that tests share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

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

/// A way to compute: a device, a type, and on the CPU with oneDNN or without.
struct DevicePath {
  const char* name;
  DType dtype;
  bool onednn;
  DeviceKind device = DeviceKind::cpu;

  double eps() const { return dtype == DType::f64 ? 0x1p-52 : 0x1p-23; }
  static constexpr std::int64_t kBudget = std::int64_t{64} << 20;
  ContextOptions options(int threads = 0) const {
    return {.device = {.kind = device}, .budget = kBudget, .threads = threads, .onednn = onednn};
  }
  /// A fresh context with `threads` threads inside operators (0: one per core).
  ContextPtr context(int threads = 0) const { return Context::create(options(threads)); }
  /// Why there is no such device here; empty where there is.
  std::string missing() const {
    if (device != DeviceKind::cuda) return "";
    return error_text([&] { context(); });
  }
};
inline constexpr DevicePath kCpuPaths[] = {
    {"OneDnn", DType::f32, true}, {"Eigen", DType::f32, false}, {"Double", DType::f64, false}};

/// The CPU's paths and the GPUs' that this build has.
inline std::vector<DevicePath> device_paths() {
  std::vector<DevicePath> paths(std::begin(kCpuPaths), std::end(kCpuPaths));
#if defined(NF_SIMT)
  paths.push_back({"Simt", DType::f32, true, DeviceKind::simt});
#endif
#if defined(NF_CUDA)
  paths.push_back({"Cuda", DType::f32, true, DeviceKind::cuda});
#endif
  return paths;
}

/// Skips a test, saying why, where its device does not answer.
#define NF_SKIP_WITHOUT_DEVICE(path) \
  if (const std::string missing = (path).missing(); !missing.empty()) GTEST_SKIP() << missing

/// A fresh context of the first path, as a user gets it.
inline ContextPtr cpu_context() { return kCpuPaths[0].context(); }

/// Threads of the contexts that are compared with the reference: sums are cut into chunks.
inline constexpr int kThreads = 3;

}  // namespace nf::test
