// Comparisons that tests share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/op_bench.h"

namespace nf::test {

/// Fails once, naming the worst element. A NaN fails. Each element may be off by its share
/// `relative` of what is expected as well.
inline void expect_close(const Values& actual, const Values& expected, double allowed,
                         const std::string& what, double relative = 0) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  std::size_t worst = 0;
  double error = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < actual.size() && !std::isnan(error); ++i)
    if (const double e = std::abs(actual[i] - expected[i]) -
                         (relative > 0 ? relative * std::abs(expected[i]) : 0.0);
        !(e <= error)) {
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

  /// Of what is computed in.
  double eps() const { return dtype == DType::f64 ? 0x1p-52 : 0x1p-23; }
  /// Of a number that one rounding to 16 bits may change; 0 where nothing has 16 bits.
  double rounding() const {
    return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0.0;
  }
  /// What one rounding may change of a number below the normal ones of f16; those of bf16 don't
  /// count.
  double least_rounding() const { return dtype == DType::f16 ? 0x1p-25 : 0.0; }
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

/// The CPU's paths and the GPUs' that this build has, in f32 and f64.
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

/// These, and the GPUs' with storage in 16 bits.
inline std::vector<DevicePath> all_paths() {
  std::vector<DevicePath> paths = device_paths();
#if defined(NF_SIMT)
  paths.push_back({"SimtBf16", DType::bf16, true, DeviceKind::simt});
  paths.push_back({"SimtF16", DType::f16, true, DeviceKind::simt});
#endif
#if defined(NF_CUDA)
  paths.push_back({"CudaBf16", DType::bf16, true, DeviceKind::cuda});
  paths.push_back({"CudaF16", DType::f16, true, DeviceKind::cuda});
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
