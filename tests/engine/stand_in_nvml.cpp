// What the driver's management library would answer of one device, for machines without it.
#include <cstring>

namespace {
constexpr int kNotFound = 6;
int device = 0;
unsigned long long millijoules = 1'500'000;
}  // namespace

extern "C" {

struct nvmlMemory {
  unsigned long long total, free, used;
};

int nvmlInit_v2() { return 0; }

int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** handle) {
  *handle = &device;
  return std::strcmp(id, "0000:3B:00.0") == 0 ? 0 : kNotFound;
}

int nvmlDeviceGetMemoryInfo(void* handle, nvmlMemory* memory) {
  *memory = {80, 50, 30};
  return handle == &device ? 0 : kNotFound;
}

// 2 J from call to call.
int nvmlDeviceGetTotalEnergyConsumption(void* handle, unsigned long long* energy) {
  *energy = millijoules += 2000;
  return handle == &device ? 0 : kNotFound;
}
}
