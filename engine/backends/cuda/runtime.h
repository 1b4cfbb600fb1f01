// One device as the driver gives it: streams, copies, the memory that its context takes.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/memory/pool.h"

namespace nf::cuda {

/// How many devices answer; where none does, why, in one line.
struct DeviceCount {
  int count = 0;
  std::string problem;
};
DeviceCount count_devices();

/// For one calling thread at a time.
class Runtime {
 public:
  /// Throws Error where the device does not answer.
  explicit Runtime(int index);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  int index() const { return index_; }
  cudaStream_t compute_stream() const { return compute_; }
  /// Bytes that are free on the device now.
  std::int64_t free_bytes() const;
  /// Bytes that the device's context and the libraries' handles take outside of any pool, as the
  /// driver counts them; -1 where it does not tell. Others that begin to use the device in the same
  /// moment are counted in.
  std::int64_t context_bytes() const { return context_bytes_; }
  /// To be called when the libraries' handles are there.
  void measure_context();

  /// One piece of device memory for a pool.
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes);

  /// Returns as soon as `source` has been read; what is computed later finds the copy done.
  void copy_from_host(void* target, const void* source, std::int64_t bytes);
  /// Returns when the bytes are there.
  void copy_to_host(void* target, const void* source, std::int64_t bytes);
  void synchronize();
  /// Makes this the current device of the calling thread.
  void select() const;

 private:
  // A copy goes through page-locked memory, which the device reads while the host goes on.
  struct Staging {
    std::byte* memory = nullptr;
    cudaEvent_t read = nullptr;
  };
  static constexpr std::int64_t kStagingBytes = std::int64_t{4} << 20;

  int index_;
  std::int64_t used_before_ = -1;
  std::int64_t context_bytes_ = -1;
  cudaStream_t compute_ = nullptr;
  cudaStream_t copy_ = nullptr;
  cudaEvent_t computed_ = nullptr;
  cudaEvent_t copied_ = nullptr;
  std::array<Staging, 4> staging_{};
  std::size_t next_staging_ = 0;
};

}  // namespace nf::cuda
