// `neuroflux kernels`: what each hand-written kernel does with memory, as the emulator sees it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/catalogue.h"

namespace nf::tools {

struct KernelsOptions {
  CatalogueSizes sizes;
  std::string kernel;  ///< what a launcher's name must contain
  std::uint64_t seed = 1;
};

/// One GPU kernel of a launcher.
struct KernelFigures {
  std::string kernel;
  std::int64_t launches = 0, threads = 0;
  // Of global memory: loads, stores and atomics together.
  std::int64_t requests = 0, sectors = 0, asked_bytes = 0, moved_bytes = 0, footprint_bytes = 0;
  double efficiency = 1.0;  ///< asked / moved
  std::int64_t shared_requests = 0, shared_passes = 0, worst_conflict = 0, shared_bytes = 0;
  std::int64_t barriers = 0;
};

/// One launch of a launcher in one of its uses.
struct LauncherFigures {
  std::string family, launcher, variant;
  std::int64_t must_read_bytes = 0, must_write_bytes = 0;
  std::vector<KernelFigures> kernels;

  std::string name() const { return variant.empty() ? launcher : launcher + "/" + variant; }
  std::int64_t must_bytes() const { return must_read_bytes + must_write_bytes; }
  std::int64_t moved_bytes() const;
  std::int64_t footprint_bytes() const;
  double ratio() const;  ///< moved / must
};

/// Runs each on the emulator. Throws UsageError where none fits the filter, KernelError for a fault
/// of a kernel, and Error in a build without the emulator.
std::vector<LauncherFigures> look_at_kernels(const KernelsOptions& options);

std::string to_table(const std::vector<LauncherFigures>& launchers);
nlohmann::json to_json(const KernelsOptions& options,
                       const std::vector<LauncherFigures>& launchers);

}  // namespace nf::tools
