#include "kernels/emulator/limits.h"

#include <algorithm>

namespace nf::simt::emulator {
namespace {

template <typename Three>
std::string three(const Three& of) {
  return "(" + std::to_string(of.x) + ", " + std::to_string(of.y) + ", " + std::to_string(of.z) +
         ")";
}

}  // namespace

void check_launch(const char* name, const Extent& grid, const Extent& block,
                  std::int64_t shared_bytes) {
  const auto refuse = [&](const std::string& rule) {
    throw KernelError(std::string(name) + "<<<" + text(grid) + ", " + text(block) + ", " +
                      std::to_string(shared_bytes) + ">>>: " + rule);
  };
  if (std::min({grid.x, grid.y, grid.z, block.x, block.y, block.z}) < 1)
    refuse("a grid and a block have at least 1 of each");
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
    refuse("a grid has at most 2147483647 x 65535 x 65535 blocks");
  if (block.x > kMostThreads || block.y > kMostThreads || block.z > 64 ||
      block.x * block.y * block.z > kMostThreads)
    refuse("a block has at most 1024 threads, 64 of them along z");
  if (shared_bytes < 0 || shared_bytes > static_cast<std::int64_t>(kSharedBytes))
    refuse("a block has at most " + std::to_string(kSharedBytes) + " bytes of shared memory");
}

std::string text(const Index3& index) { return three(index); }
std::string text(const Extent& extent) { return three(extent); }

Index3 index_in(std::int64_t linear, const Extent& extent) {
  return {static_cast<unsigned>(linear % extent.x),
          static_cast<unsigned>(linear / extent.x % extent.y),
          static_cast<unsigned>(linear / extent.x / extent.y)};
}

}  // namespace nf::simt::emulator
