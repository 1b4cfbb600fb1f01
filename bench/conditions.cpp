#include "bench/conditions.h"

#include <algorithm>
#include <thread>

#include "bench/commit.h"  // written by commit.cmake

namespace nf::bench {
namespace {

#if defined(NF_BENCH_ONEDNN)
constexpr bool kHasOneDnn = true;
#else
constexpr bool kHasOneDnn = false;
#endif
#if defined(NF_BENCH_OPENMP)
constexpr bool kHasThreads = true;
#else
constexpr bool kHasThreads = false;
#endif

}  // namespace

std::string compiler() {
#if defined(__clang__)
  return "clang++ " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

std::string build() { return NF_BENCH_BUILD; }

std::string commit() { return NF_BENCH_COMMIT; }

std::string library(const ContextOptions& options) {
  return kHasOneDnn && options.onednn ? "onednn" : "eigen";
}

int threads(const ContextOptions& options) {
  if (!kHasThreads) return 1;
  if (options.threads > 0) return options.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace nf::bench
