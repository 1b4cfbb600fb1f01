#include "bench/conditions.h"

#include "bench/commit.h"  // written by commit.cmake
#include "engine/backends/cpu/instruction_set.h"

namespace nf::bench {

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
  if (options.device.kind == DeviceKind::cuda) return "cudnn, cublas";
#if defined(NF_BENCH_ONEDNN)
  if (options.onednn) return "onednn " NF_BENCH_ONEDNN;
#endif
  return "eigen";
}

std::string cpu_isa() { return std::string(to_string(cpu::instruction_set())); }

}  // namespace nf::bench
