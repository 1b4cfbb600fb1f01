// What one launch may ask for, and how indices of threads and blocks are counted and written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/simt.h"

// Words of kernels, of no use to who runs them.
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace nf::simt::emulator {

inline constexpr std::size_t kWarp = 32;
inline constexpr std::int64_t kMostThreads = 1024;  // of a block
inline constexpr std::size_t kMostWarps = static_cast<std::size_t>(kMostThreads) / kWarp;
inline constexpr std::size_t kSharedBytes = 48 * 1024;  // of a block

/// Throws KernelError, with the launch's name and sizes, where a GPU would refuse it.
void check_launch(const char* name, const Extent& grid, const Extent& block,
                  std::int64_t shared_bytes);

/// "(x, y, z)".
std::string text(const Index3& index);
std::string text(const Extent& extent);

/// The index of which `linear` is the number, x first.
Index3 index_in(std::int64_t linear, const Extent& extent);
inline Index3 as_index(const Extent& extent) {
  return {static_cast<unsigned>(extent.x), static_cast<unsigned>(extent.y),
          static_cast<unsigned>(extent.z)};
}

}  // namespace nf::simt::emulator
