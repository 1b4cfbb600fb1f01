// One device as the driver gives it: streams, copies, the memory that its context takes.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "engine/memory/pool.h"
#include "engine/memory/reuse.h"

namespace nf::cuda {

/// How many devices answer; where none does, why, in one line.
struct DeviceCount {
  int count = 0;
  std::string problem;
};
DeviceCount count_devices();

/// Calls that compute come from one thread at a time.
class Runtime {
 public:
  /// Throws Error where the device does not answer.
  explicit Runtime(int index);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  cudaStream_t compute_stream() const { return compute_; }
  /// Makes the device the calling thread's: libraries ask for it without naming it.
  void select() const;
  /// The stream for one call that computes, the device made the current one.
  cudaStream_t next_call();
  /// As in sm_90: 90.
  int capability() const { return capability_; }
  /// Whether the device shares the host's memory.
  bool integrated() const { return integrated_; }
  /// Bytes that are free on the device now.
  std::int64_t free_bytes() const;
  /// Bytes that the device's context and the libraries' handles take outside of any pool, as the
  /// driver counts them; -1 where it does not tell. Others that begin to use the device in the same
  /// moment are counted in.
  std::int64_t context_bytes() const { return context_bytes_; }
  /// To be called when the libraries' handles are there.
  void measure_context();

  /// One piece of device memory for a pool, which must not outlive this.
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes);

  /// Returns as soon as `source` has been read; what is computed later finds the copy done. It
  /// overlaps with calls made before, but for those that may use the target's memory.
  void copy_from_host(void* target, const void* source, std::int64_t bytes);
  /// Returns when the bytes are there.
  void copy_to_host(void* target, const void* source, std::int64_t bytes);
  void synchronize();

  /// What computes from here on, on the calling thread, becomes part of a graph.
  void begin_capture();
  /// Throws Error where a call could not be captured.
  cudaGraphExec_t end_capture();
  void abandon_capture() noexcept;
  /// One call that computes what the graph does.
  void launch(cudaGraphExec_t graph);

 private:
  class DeviceRange;

  // Copies go through page-locked memory, which the device reaches while the host goes on.
  struct Staging {
    std::byte* memory = nullptr;
    cudaEvent_t used = nullptr;
  };
  static constexpr std::int64_t kStagings = 4;
  static constexpr std::int64_t kStagingBytes = std::int64_t{4} << 20;

  // An event on the compute stream behind so many calls.
  struct Mark {
    cudaEvent_t event = nullptr;
    std::uint64_t calls = 0;
  };
  static constexpr std::uint64_t kCallsPerMark = 16;

  void make();
  void release() noexcept;
  Staging& next_staging();
  void set_mark();
  void wait_for_calls(std::uint64_t calls);
  std::uint64_t calls_before_write(const void* target) const;

  int index_;
  int capability_ = 0;
  bool integrated_ = false;
  std::int64_t used_before_ = -1;
  std::int64_t context_bytes_ = -1;
  cudaStream_t compute_ = nullptr;
  cudaStream_t copy_ = nullptr;
  cudaEvent_t copied_ = nullptr;

  bool capturing_ = false;
  std::atomic<std::uint64_t> calls_ = 0;
  std::mutex mutex_;  // for what follows
  std::array<Staging, kStagings> staging_{};
  std::size_t next_staging_ = 0;
  std::array<Mark, 16> marks_{};
  std::size_t next_mark_ = 0;
  std::map<const std::byte*, DeviceRange*> ranges_;
};

}  // namespace nf::cuda
