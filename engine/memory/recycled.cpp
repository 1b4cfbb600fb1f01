#include "engine/memory/recycled.h"

#include <array>
#include <bit>
#include <mutex>

namespace nf {
namespace {

#if defined(__SANITIZE_ADDRESS__)
// Its report of a use after free needs blocks that really go.
constexpr bool kRecycles = false;
#else
constexpr bool kRecycles = true;
#endif

// Sizes go up by a granule, and from kFineBytes on by doubling.
constexpr std::size_t kGranule = __STDCPP_DEFAULT_NEW_ALIGNMENT__;
constexpr std::size_t kFineBytes = 1024, kMostBytes = std::size_t{1} << 20;
constexpr std::size_t kFineSizes = kFineBytes / kGranule;
constexpr std::size_t kSizes = kFineSizes + std::bit_width(kMostBytes / kFineBytes) - 1;

struct Size {
  std::size_t index, bytes;
};

// Of 1 to kMostBytes.
Size size_for(std::size_t bytes) {
  if (bytes <= kFineBytes) {
    const std::size_t index = (bytes - 1) / kGranule;
    return {index, (index + 1) * kGranule};
  }
  const auto doublings = static_cast<std::size_t>(std::bit_width((bytes - 1) / kFineBytes));
  return {kFineSizes + doublings - 1, kFineBytes << doublings};
}

class FreeBlocks {
 public:
  /// Null where there is none of that size.
  void* take(std::size_t index) {
    const std::lock_guard lock(mutex_);
    Block* block = first_[index];
    if (block != nullptr) first_[index] = block->next;
    return block;
  }
  void put(std::size_t index, void* memory) noexcept {
    const std::lock_guard lock(mutex_);
    first_[index] = new (memory) Block{first_[index]};
  }

 private:
  struct Block {
    Block* next;
  };
  static_assert(sizeof(Block) <= kGranule);

  std::mutex mutex_;
  std::array<Block*, kSizes> first_{};
};

// Never destroyed: objects of static lifetime may still come back.
FreeBlocks& free_blocks() {
  static FreeBlocks& blocks = *new FreeBlocks;
  return blocks;
}

bool recycled(std::size_t bytes) { return kRecycles && bytes > 0 && bytes <= kMostBytes; }

}  // namespace

void* detail::take_block(std::size_t bytes) {
  if (!recycled(bytes)) return ::operator new(bytes);
  const Size size = size_for(bytes);
  void* block = free_blocks().take(size.index);
  return block != nullptr ? block : ::operator new(size.bytes);
}

void detail::give_block_back(void* block, std::size_t bytes) noexcept {
  if (!recycled(bytes))
    ::operator delete(block);
  else if (block != nullptr)
    free_blocks().put(size_for(bytes).index, block);
}

}  // namespace nf
