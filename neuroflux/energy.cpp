#include "neuroflux/energy.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

namespace nf {
namespace {

std::optional<std::uint64_t> read_number(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::uint64_t number = 0;
  return in >> number ? std::optional(number) : std::nullopt;
}

// psys is the whole platform, packages included.
bool holds_packages(const std::filesystem::path& zone) {
  std::ifstream in(zone / "name");
  std::string name;
  return in >> name && name == "psys";
}

}  // namespace

EnergyMeter::EnergyMeter(std::function<std::optional<double>()> gpu,
                         const std::filesystem::path& powercap)
    : gpu_(std::move(gpu)) {
  if (gpu_) gpu_joules_ = gpu_();
  std::error_code status;
  for (const auto& entry : std::filesystem::directory_iterator(powercap, status)) {
    // intel-rapl:0 is a package; intel-rapl:0:1 a part of it, which would be counted twice.
    const std::string name = entry.path().filename().string();
    if (std::count(name.begin(), name.end(), ':') != 1 || holds_packages(entry.path())) continue;
    const auto range = read_number(entry.path() / "max_energy_range_uj");
    const auto now = read_number(entry.path() / "energy_uj");
    if (range && now) counters_.push_back({entry.path() / "energy_uj", *range, *now});
  }
}

std::optional<double> EnergyMeter::joules() {
  if (counters_.empty() && !gpu_joules_) return std::nullopt;
  for (Counter& counter : counters_) {
    const auto now = read_number(counter.file);
    if (!now) continue;
    const std::uint64_t wrapped = *now < counter.last ? counter.range : 0;
    joules_ += 1e-6 * static_cast<double>(*now + wrapped - counter.last);
    counter.last = *now;
  }
  if (gpu_joules_)
    if (const std::optional<double> now = gpu_()) {
      joules_ += std::max(0.0, *now - *gpu_joules_);  // it begins anew with the driver
      gpu_joules_ = now;
    }
  return joules_;
}

}  // namespace nf
