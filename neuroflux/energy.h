// Energy that the machine says it has used, where it says so.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

namespace nf {

/// Sums the counters of the processor's packages (Linux powercap, Intel RAPL and its AMD twin) and
/// that of a GPU since it was made. A counter that can't be read, which needs rights on many
/// machines, is left out; without any there is no figure.
class EnergyMeter {
 public:
  /// `gpu` tells the joules that one has taken since some moment, or nothing; empty: there is none.
  explicit EnergyMeter(std::function<std::optional<double>()> gpu = {},
                       const std::filesystem::path& powercap = "/sys/class/powercap");

  /// Joules of whole packages and the whole GPU, other programs included. Counters that have
  /// wrapped around once since the last call are understood: call it more often than every few
  /// minutes.
  std::optional<double> joules();

 private:
  struct Counter {
    std::filesystem::path file;
    std::uint64_t range = 0;  // it runs from 0 to this, in microjoules
    std::uint64_t last = 0;
  };

  std::vector<Counter> counters_;
  std::function<std::optional<double>()> gpu_;
  std::optional<double> gpu_joules_;  // when last asked; empty: it does not tell
  double joules_ = 0.0;
};

}  // namespace nf
