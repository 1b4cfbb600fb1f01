#include "engine/backends/cuda/runtime.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>

#include "engine/backends/cuda/check.h"
#include "engine/backends/cuda/management.h"
#include "engine/gpu_energy.h"

namespace nf::cuda {
namespace {

// By which the management library knows the device; empty where none answers.
std::optional<std::string> pci_bus_id(int index) {
  std::array<char, 32> id{};
  if (cudaDeviceGetPCIBusId(id.data(), static_cast<int>(id.size()), index) == cudaSuccess)
    return id.data();
  cudaGetLastError();
  return std::nullopt;
}

// Unlike cudaMemGetInfo it makes no context. -1 where nothing answers.
std::int64_t used_bytes(int index) {
  const std::optional<std::string> id = pci_bus_id(index);
  return id ? Management().used_bytes(*id).value_or(-1) : -1;
}

}  // namespace

/// Device memory that knows since when its pieces are free.
class Runtime::DeviceRange final : public AddressRange {
 public:
  DeviceRange(Runtime& runtime, std::int64_t bytes) : runtime_(runtime), bytes_(bytes) {
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
    const std::lock_guard lock(runtime_.mutex_);
    runtime_.ranges_[base_] = this;
  }
  ~DeviceRange() override {
    {
      const std::lock_guard lock(runtime_.mutex_);
      runtime_.ranges_.erase(base_);
    }
    cudaFree(base_);
  }
  DeviceRange(const DeviceRange&) = delete;
  DeviceRange& operator=(const DeviceRange&) = delete;

  std::byte* base() const override { return base_; }
  std::int64_t bytes() const override { return bytes_; }
  void mark_granted(std::int64_t offset, std::int64_t bytes) override {
    reuse_.granted(offset, bytes, runtime_.calls_);
  }
  void mark_free(std::int64_t offset, std::int64_t bytes) override {
    reuse_.freed(offset, bytes, runtime_.calls_);
  }
  const ReuseTracker& reuse() const { return reuse_; }

 private:
  Runtime& runtime_;
  ReuseTracker reuse_;
  std::byte* base_ = nullptr;
  std::int64_t bytes_;
};

DeviceCount count_devices() {
  DeviceCount devices;
  const cudaError_t status = cudaGetDeviceCount(&devices.count);
  if (status == cudaSuccess && devices.count > 0) return devices;
  cudaGetLastError();
  devices.count = 0;
  int driver = 0, needed = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&needed);
  const auto version = [](int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); };
  if (driver == 0)
    devices.problem = "there is no driver";
  else if (status == cudaErrorInsufficientDriver)
    devices.problem = fmt::format("the driver knows CUDA up to {}, this build needs {}",
                                  version(driver), version(needed));
  else
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
  try {
    make();
  } catch (...) {
    release();
    throw;
  }
}

void Runtime::make() {
  int major = 0, minor = 0, integrated = 0;
  NF_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index_));
  NF_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index_));
  NF_CUDA_CHECK(cudaDeviceGetAttribute(&integrated, cudaDevAttrIntegrated, index_));
  capability_ = 10 * major + minor;
  integrated_ = integrated != 0;
  NF_CUDA_CHECK(cudaFree(nullptr));  // makes the context
  NF_CUDA_CHECK(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking));
  NF_CUDA_CHECK(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking));
  NF_CUDA_CHECK(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
  for (Mark& mark : marks_)
    NF_CUDA_CHECK(cudaEventCreateWithFlags(&mark.event, cudaEventDisableTiming));
  for (Staging& staging : staging_) {
    void* memory = nullptr;
    NF_CUDA_CHECK(cudaMallocHost(&memory, static_cast<std::size_t>(kStagingBytes)));
    staging.memory = static_cast<std::byte*>(memory);
    NF_CUDA_CHECK(cudaEventCreateWithFlags(&staging.used, cudaEventDisableTiming));
  }
}

Runtime::~Runtime() {
  cudaStreamSynchronize(copy_);
  cudaStreamSynchronize(compute_);
  release();
}

void Runtime::release() noexcept {
  for (Staging& staging : staging_) {
    if (staging.used != nullptr) cudaEventDestroy(staging.used);
    cudaFreeHost(staging.memory);
  }
  for (Mark& mark : marks_)
    if (mark.event != nullptr) cudaEventDestroy(mark.event);
  if (copied_ != nullptr) cudaEventDestroy(copied_);
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
  return std::make_unique<DeviceRange>(*this, bytes);
}

cudaStream_t Runtime::next_call() {
  select();
  const std::lock_guard lock(mutex_);
  if (capturing_) return compute_;  // nothing is carried out that a copy would have to wait for
  if (calls_ % kCallsPerMark == 0) set_mark();
  ++calls_;
  return compute_;
}

void Runtime::begin_capture() {
  select();
  NF_CHECK(!capturing_, "cuda: calls are being captured already");
  // Other threads may call what a capture forbids: they have no part in it.
  NF_CUDA_CHECK(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal));
  capturing_ = true;
}

cudaGraphExec_t Runtime::end_capture() {
  NF_CHECK(capturing_, "cuda: no calls are being captured");
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  if (const cudaError_t status = cudaStreamEndCapture(compute_, &graph); status != cudaSuccess) {
    cudaGetLastError();  // not to be found by the next launch
    fail("cuda: calls could not be captured ({}); ContextOptions::graphs = false does without",
         cudaGetErrorString(status));
  }
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate(&executable, graph, 0)");
  return executable;
}

void Runtime::abandon_capture() noexcept {
  if (!capturing_) return;
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(compute_, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // not to be found by the next launch
}

void Runtime::launch(cudaGraphExec_t graph) { NF_CUDA_CHECK(cudaGraphLaunch(graph, next_call())); }

void Runtime::set_mark() {
  Mark& mark = marks_[next_mark_++ % marks_.size()];
  NF_CUDA_CHECK(cudaEventRecord(mark.event, compute_));
  mark.calls = calls_;
}

// Makes the copy stream wait, for as few later calls as the marks allow.
void Runtime::wait_for_calls(std::uint64_t calls) {
  if (calls == 0) return;
  const Mark* found = nullptr;
  const auto look = [&] {
    for (const Mark& mark : marks_)
      if (mark.calls >= calls && (found == nullptr || mark.calls < found->calls)) found = &mark;
  };
  look();
  if (found == nullptr) {
    set_mark();
    look();
  }
  NF_CUDA_CHECK(cudaStreamWaitEvent(copy_, found->event, 0));
}

std::uint64_t Runtime::calls_before_write(const void* target) const {
  const auto* address = static_cast<const std::byte*>(target);
  auto range = ranges_.upper_bound(address);
  if (range == ranges_.begin()) return calls_;
  range = std::prev(range);
  return range->second->reuse().calls_before_write(address - range->first, calls_);
}

Runtime::Staging& Runtime::next_staging() {
  Staging& staging = staging_[next_staging_++ % staging_.size()];
  NF_CUDA_CHECK(cudaEventSynchronize(staging.used));
  return staging;
}

void Runtime::copy_from_host(void* target, const void* source, std::int64_t bytes) {
  NF_CHECK(!capturing_, "cuda: a copy from the host can't be captured");
  if (bytes == 0) return;
  select();
  const std::lock_guard lock(mutex_);
  wait_for_calls(calls_before_write(target));
  for (std::int64_t done = 0; done < bytes; done += kStagingBytes) {
    const auto part = static_cast<std::size_t>(std::min(kStagingBytes, bytes - done));
    Staging& staging = next_staging();
    std::memcpy(staging.memory, static_cast<const std::byte*>(source) + done, part);
    NF_CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(target) + done, staging.memory, part,
                                  cudaMemcpyHostToDevice, copy_));
    NF_CUDA_CHECK(cudaEventRecord(staging.used, copy_));
  }
  NF_CUDA_CHECK(cudaEventRecord(copied_, copy_));
  NF_CUDA_CHECK(cudaStreamWaitEvent(compute_, copied_, 0));
}

void Runtime::copy_to_host(void* target, const void* source, std::int64_t bytes) {
  NF_CHECK(!capturing_, "cuda: a copy to the host can't be captured");
  if (bytes == 0) return;
  select();
  const std::lock_guard lock(mutex_);
  // As many parts under way as there is staging memory: one is taken out while others come in.
  const std::int64_t parts = (bytes + kStagingBytes - 1) / kStagingBytes;
  const auto size = [&](std::int64_t part) {
    return static_cast<std::size_t>(std::min(kStagingBytes, bytes - part * kStagingBytes));
  };
  std::array<const Staging*, kStagings> under_way{};
  const auto fetch = [&](std::int64_t part) {
    Staging& staging = next_staging();
    NF_CUDA_CHECK(cudaMemcpyAsync(staging.memory,
                                  static_cast<const std::byte*>(source) + part * kStagingBytes,
                                  size(part), cudaMemcpyDeviceToHost, compute_));
    NF_CUDA_CHECK(cudaEventRecord(staging.used, compute_));
    under_way[static_cast<std::size_t>(part % kStagings)] = &staging;
  };
  for (std::int64_t part = 0; part < std::min(parts, kStagings); ++part) fetch(part);
  for (std::int64_t part = 0; part < parts; ++part) {
    const Staging& staging = *under_way[static_cast<std::size_t>(part % kStagings)];
    NF_CUDA_CHECK(cudaEventSynchronize(staging.used));
    std::memcpy(static_cast<std::byte*>(target) + part * kStagingBytes, staging.memory, size(part));
    if (part + kStagings < parts) fetch(part + kStagings);
  }
}

void Runtime::synchronize() {
  NF_CHECK(!capturing_, "cuda: a wait can't be captured");
  select();
  NF_CUDA_CHECK(cudaStreamSynchronize(compute_));
}

}  // namespace nf::cuda

std::optional<double> nf::cuda_joules(int index) {
  const std::optional<std::string> id = cuda::pci_bus_id(index);
  return id ? cuda::Management().joules(*id) : std::nullopt;
}
