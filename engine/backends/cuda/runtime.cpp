#include "engine/backends/cuda/runtime.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>

#include "engine/backends/cuda/check.h"

namespace nf::cuda {
namespace {

// Bytes used on a device by all who use it, from the driver's management library: unlike
// cudaMemGetInfo it makes no context. -1 where it does not answer.
std::int64_t used_bytes(const char* pci_bus_id) {
  struct Memory {
    unsigned long long total, free, used;
  };
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return -1;
  using Handle = void*;
  const auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
  const auto find = reinterpret_cast<int (*)(const char*, Handle*)>(
      dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
  const auto read =
      reinterpret_cast<int (*)(Handle, Memory*)>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
  std::int64_t used = -1;
  if (init != nullptr && find != nullptr && read != nullptr && init() == 0) {
    Handle device = nullptr;
    Memory memory{};
    if (find(pci_bus_id, &device) == 0 && read(device, &memory) == 0)
      used = static_cast<std::int64_t>(memory.used);
  }
  // It stays loaded: a later measurement would only load it again.
  return used;
}

std::int64_t used_bytes(int index) {
  char pci_bus_id[32];
  if (cudaDeviceGetPCIBusId(pci_bus_id, sizeof(pci_bus_id), index) != cudaSuccess) return -1;
  return used_bytes(pci_bus_id);
}

class DeviceRange : public AddressRange {
 public:
  explicit DeviceRange(std::int64_t bytes) : bytes_(bytes) {
    void* base = nullptr;
    const cudaError_t status = cudaMalloc(&base, static_cast<std::size_t>(bytes));
    if (status != cudaSuccess) {
      cudaGetLastError();  // not to be found by the next launch
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      fail("cuda: can't reserve {} bytes, {} of {} are free: {}", bytes, free, total,
           cudaGetErrorString(status));
    }
    base_ = static_cast<std::byte*>(base);
  }
  ~DeviceRange() override { cudaFree(base_); }
  DeviceRange(const DeviceRange&) = delete;
  DeviceRange& operator=(const DeviceRange&) = delete;

  std::byte* base() const override { return base_; }
  std::int64_t bytes() const override { return bytes_; }

 private:
  std::byte* base_ = nullptr;
  std::int64_t bytes_;
};

}  // namespace

DeviceCount count_devices() {
  DeviceCount devices;
  const cudaError_t status = cudaGetDeviceCount(&devices.count);
  if (status == cudaSuccess && devices.count > 0) return devices;
  cudaGetLastError();
  devices.count = 0;
  devices.problem =
      status == cudaSuccess ? "the driver knows no device" : cudaGetErrorString(status);
  return devices;
}

Runtime::Runtime(int index) : index_(index) {
  const DeviceCount devices = count_devices();
  NF_CHECK(devices.count > 0, "cuda: no device answers: {}", devices.problem);
  NF_CHECK(index >= 0 && index < devices.count, "cuda:{}: this machine has {} {}", index,
           devices.count, devices.count == 1 ? "device, cuda:0" : "devices");
  used_before_ = used_bytes(index);
  select();
  NF_CUDA_CHECK(cudaFree(nullptr));  // makes the context
  NF_CUDA_CHECK(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking));
  NF_CUDA_CHECK(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking));
  NF_CUDA_CHECK(cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming));
  NF_CUDA_CHECK(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
  for (Staging& staging : staging_) {
    void* memory = nullptr;
    NF_CUDA_CHECK(cudaMallocHost(&memory, static_cast<std::size_t>(kStagingBytes)));
    staging.memory = static_cast<std::byte*>(memory);
    NF_CUDA_CHECK(cudaEventCreateWithFlags(&staging.read, cudaEventDisableTiming));
  }
}

Runtime::~Runtime() {
  cudaStreamSynchronize(copy_);
  cudaStreamSynchronize(compute_);
  for (Staging& staging : staging_) {
    if (staging.read != nullptr) cudaEventDestroy(staging.read);
    cudaFreeHost(staging.memory);
  }
  for (cudaEvent_t event : {computed_, copied_})
    if (event != nullptr) cudaEventDestroy(event);
  for (cudaStream_t stream : {compute_, copy_})
    if (stream != nullptr) cudaStreamDestroy(stream);
}

void Runtime::select() const { NF_CUDA_CHECK(cudaSetDevice(index_)); }

std::int64_t Runtime::free_bytes() const {
  select();
  std::size_t free = 0, total = 0;
  NF_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(free);
}

void Runtime::measure_context() {
  const std::int64_t used = used_bytes(index_);
  if (used >= 0 && used_before_ >= 0) context_bytes_ = used - used_before_;
}

std::unique_ptr<AddressRange> Runtime::reserve(std::int64_t bytes) {
  select();
  return std::make_unique<DeviceRange>(bytes);
}

void Runtime::copy_from_host(void* target, const void* source, std::int64_t bytes) {
  if (bytes == 0) return;
  select();
  // The target's memory may still be in use by what was computed before it was granted anew.
  NF_CUDA_CHECK(cudaEventRecord(computed_, compute_));
  NF_CUDA_CHECK(cudaStreamWaitEvent(copy_, computed_, 0));
  for (std::int64_t done = 0; done < bytes; done += kStagingBytes) {
    const auto part = static_cast<std::size_t>(std::min(kStagingBytes, bytes - done));
    Staging& staging = staging_[next_staging_++ % staging_.size()];
    NF_CUDA_CHECK(cudaEventSynchronize(staging.read));
    std::memcpy(staging.memory, static_cast<const std::byte*>(source) + done, part);
    NF_CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(target) + done, staging.memory, part,
                                  cudaMemcpyHostToDevice, copy_));
    NF_CUDA_CHECK(cudaEventRecord(staging.read, copy_));
  }
  NF_CUDA_CHECK(cudaEventRecord(copied_, copy_));
  NF_CUDA_CHECK(cudaStreamWaitEvent(compute_, copied_, 0));
}

void Runtime::copy_to_host(void* target, const void* source, std::int64_t bytes) {
  if (bytes == 0) return;
  select();
  NF_CUDA_CHECK(cudaMemcpyAsync(target, source, static_cast<std::size_t>(bytes),
                                cudaMemcpyDeviceToHost, compute_));
  NF_CUDA_CHECK(cudaStreamSynchronize(compute_));
}

void Runtime::synchronize() {
  select();
  NF_CUDA_CHECK(cudaStreamSynchronize(compute_));
}

}  // namespace nf::cuda
