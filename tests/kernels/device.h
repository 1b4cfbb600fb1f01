// Arrays that kernels work on, on the emulator or, in the tests' second build, on a GPU.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/element.h"
#if defined(NF_TESTS_ON_GPU)
#include <cuda_runtime.h>
#else
#include "kernels/emulator/emulator.h"
#endif

namespace nf::NF_TARGET::test {

inline constexpr Stream kStream = nullptr;

/// `size` elements that start `offset` elements after a 256-byte boundary, with guard bytes behind.
/// Host code may read and write them between launches.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::int64_t size, std::int64_t offset = 0) : size_(size) {
    const std::size_t bytes = static_cast<std::size_t>(size + offset) * sizeof(T);
#if defined(NF_TESTS_ON_GPU)
    if (cudaMallocManaged(&memory_, bytes + 256) != cudaSuccess)
      throw KernelError("no managed memory for a test");
    cudaDeviceSynchronize();  // a board's host may not touch managed memory while a kernel runs
    std::memset(memory_, 0xcd, bytes + 256);
    guard_ = static_cast<unsigned char*>(memory_) + bytes;
#else
    memory_ = std::aligned_alloc(256, (bytes + 511) / 256 * 256);
    std::memset(memory_, 0xcd, (bytes + 511) / 256 * 256);
    simt::emulator::add_memory(static_cast<T*>(memory_) + offset,
                               size * static_cast<std::int64_t>(sizeof(T)));
#endif
    data_ = static_cast<T*>(memory_) + offset;
  }
  DeviceArray(const std::vector<T>& values, std::int64_t offset = 0)
      : DeviceArray(static_cast<std::int64_t>(values.size()), offset) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~DeviceArray() {
#if defined(NF_TESTS_ON_GPU)
    // What is written behind the array lies within its allocation: no checker sees it.
    if (cudaDeviceSynchronize() == cudaSuccess) {
      EXPECT_TRUE(
          std::all_of(guard_, guard_ + 256, [](unsigned char byte) { return byte == 0xcd; }))
          << "a kernel wrote behind an array of " << size_ << " elements";
    }
    cudaFree(memory_);
#else
    simt::emulator::remove_memory(data_);
    std::free(memory_);
#endif
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  /// On a GPU this waits for the device: it may be for the host.
  T* data() {
#if defined(NF_TESTS_ON_GPU)
    cudaDeviceSynchronize();
#endif
    return data_;
  }
  std::int64_t size() const { return size_; }
  /// Waits for the device.
  std::vector<T> host() const {
#if defined(NF_TESTS_ON_GPU)
    const cudaError_t status = cudaDeviceSynchronize();
    if (status != cudaSuccess) throw KernelError(cudaGetErrorString(status));
#endif
    return {data_, data_ + size_};
  }

 private:
  void* memory_ = nullptr;
  T* data_ = nullptr;
  std::int64_t size_;
#if defined(NF_TESTS_ON_GPU)
  unsigned char* guard_ = nullptr;
#endif
};

// Host twins of the kernels' conversions.
inline float to_host_float(float value) { return value; }
inline float to_host_float(f16 value) { return f16_to_float(value.bits); }
inline float to_host_float(bf16 value) { return bf16_to_float(value.bits); }
template <typename T>
T from_host_float(float value) {
  if constexpr (std::is_same_v<T, f16>)
    return f16{float_to_f16(value)};
  else if constexpr (std::is_same_v<T, bf16>)
    return bf16{float_to_bf16(value)};
  else
    return static_cast<T>(value);
}

/// Half of a unit in the last place of T, relative: what one rounding to storage may change.
template <typename T>
inline constexpr double kRounding = std::is_same_v<T, f16>    ? 0x1p-11
                                    : std::is_same_v<T, bf16> ? 0x1p-8
                                                              : 0x1p-24;

/// Uniform in [low, high), rounded to T.
template <typename T>
std::vector<T> random_values(std::int64_t size, std::uint32_t seed, float low = -1,
                             float high = 1) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& value : values) value = from_host_float<T>(uniform(random));
  return values;
}

/// The storage types, for TYPED_TEST_SUITE.
using StorageTypes = ::testing::Types<float, bf16, f16>;

}  // namespace nf::NF_TARGET::test
