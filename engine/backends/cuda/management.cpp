#include "engine/backends/cuda/management.h"

#include <dlfcn.h>

namespace nf::cuda {
namespace {

// Its header is not asked for, since toolkits come without it; these are nvml.h's.
struct Memory {
  unsigned long long total, free, used;
};
using Millijoules = unsigned long long;

template <typename Function>
Function function(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

Management::Management(const std::string& soname)
    : library_(dlopen(soname.c_str(), RTLD_NOW | RTLD_LOCAL)) {}

template <typename Answer>
std::optional<Answer> Management::ask(const char* name, const std::string& pci_bus_id) const {
  if (library_ == nullptr) return std::nullopt;
  const auto init = function<int (*)()>(library_, "nvmlInit_v2");
  const auto find =
      function<int (*)(const char*, Device*)>(library_, "nvmlDeviceGetHandleByPciBusId_v2");
  const auto read = function<int (*)(Device, Answer*)>(library_, name);
  if (init == nullptr || find == nullptr || read == nullptr || init() != 0) return std::nullopt;
  Device device = nullptr;
  Answer answer{};
  if (find(pci_bus_id.c_str(), &device) != 0 || read(device, &answer) != 0) return std::nullopt;
  return answer;
}

std::optional<std::int64_t> Management::used_bytes(const std::string& pci_bus_id) const {
  const auto memory = ask<Memory>("nvmlDeviceGetMemoryInfo", pci_bus_id);
  return memory ? std::optional(static_cast<std::int64_t>(memory->used)) : std::nullopt;
}

std::optional<double> Management::joules(const std::string& pci_bus_id) const {
  const auto energy = ask<Millijoules>("nvmlDeviceGetTotalEnergyConsumption", pci_bus_id);
  return energy ? std::optional(1e-3 * static_cast<double>(*energy)) : std::nullopt;
}

}  // namespace nf::cuda
