// Host memory for the engine's small objects: handles of tensors, what a tape records, the pool's
// own books. A block that is given back waits for the next object of its size, so a training step
// that is like those before it asks the system for none.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <new>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace nf {

namespace detail {
/// Any thread may take and give back. Blocks are kept for the life of the process; those above
/// 1 MiB are the system's.
void* take_block(std::size_t bytes);
void give_block_back(void* block, std::size_t bytes) noexcept;
}  // namespace detail

/// An allocator of the standard library's kind.
template <typename T>
class RecyclingAllocator {
 public:
  using value_type = T;
  static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);

  RecyclingAllocator() = default;
  template <typename Other>
  RecyclingAllocator(const RecyclingAllocator<Other>&) {}

  T* allocate(std::size_t count) {
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T))
      throw std::bad_array_new_length();
    return static_cast<T*>(detail::take_block(count * sizeof(T)));
  }
  void deallocate(T* block, std::size_t count) noexcept {
    detail::give_block_back(block, count * sizeof(T));
  }
};

template <typename T, typename Other>
bool operator==(const RecyclingAllocator<T>&, const RecyclingAllocator<Other>&) {
  return true;
}

template <typename T>
using RecycledVector = std::vector<T, RecyclingAllocator<T>>;
template <typename T>
using RecycledSet = std::set<T, std::less<T>, RecyclingAllocator<T>>;
template <typename Key, typename T>
using RecycledMap = std::map<Key, T, std::less<Key>, RecyclingAllocator<std::pair<const Key, T>>>;
template <typename Key, typename T>
using RecycledHashMap = std::unordered_map<Key, T, std::hash<Key>, std::equal_to<Key>,
                                           RecyclingAllocator<std::pair<const Key, T>>>;

/// Base of classes whose objects, and those of classes derived from them, are made there by `new`.
struct RecycledObject {
  static void* operator new(std::size_t bytes) { return detail::take_block(bytes); }
  static void operator delete(void* object, std::size_t bytes) noexcept {
    detail::give_block_back(object, bytes);
  }
  static void* operator new(std::size_t bytes, std::align_val_t alignment) = delete;
};

}  // namespace nf
