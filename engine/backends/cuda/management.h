// The driver's management library, NVML: what it tells of a device without making a context there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace nf::cuda {

/// Loaded by name, it stays loaded. Answers are empty where the library, the function or the device
/// does not answer.
class Management {
 public:
  explicit Management(const std::string& soname = "libnvidia-ml.so.1");

  /// Bytes used on the device by all who use it.
  std::optional<std::int64_t> used_bytes(const std::string& pci_bus_id) const;
  /// Joules that the device has taken since the driver was loaded; GPUs before Volta don't tell.
  std::optional<double> joules(const std::string& pci_bus_id) const;

 private:
  using Device = void*;

  // Of the function `name` with the device and a place for the answer; empty where it fails.
  template <typename Answer>
  std::optional<Answer> ask(const char* name, const std::string& pci_bus_id) const;

  void* library_ = nullptr;
};

}  // namespace nf::cuda
