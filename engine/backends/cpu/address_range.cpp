#include "engine/backends/cpu/address_range.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace nf::cpu {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{2} << 20;
// Poisoning a whole range would cost an eighth of it in shadow memory: only this far ahead.
constexpr std::int64_t kPoisonAhead = std::int64_t{1} << 20;

void poison([[maybe_unused]] std::byte* address, [[maybe_unused]] std::int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(address, static_cast<std::size_t>(bytes));
#endif
}

void unpoison([[maybe_unused]] std::byte* address, [[maybe_unused]] std::int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(address, static_cast<std::size_t>(bytes));
#endif
}

}  // namespace

HostRange::HostRange(std::int64_t bytes) : bytes_(bytes) {
  NF_CHECK(bytes > 0, "cpu: a range must have at least one byte, got {}", bytes);
  // Huge pages need an aligned start; small ranges are better off without.
  const bool huge = bytes >= 4 * kHugePage;
  NF_CHECK(!__builtin_add_overflow(bytes, huge ? kHugePage : 0, &mapped_),
           "cpu: can't reserve {} bytes: more than 63 bits count with the alignment", bytes);
  mapping_ = mmap(nullptr, static_cast<std::size_t>(mapped_), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  NF_CHECK(mapping_ != MAP_FAILED, "cpu: can't reserve {} bytes: {}", bytes, std::strerror(errno));
  base_ = static_cast<std::byte*>(mapping_);
  if (huge) {
    const auto misfit = reinterpret_cast<std::uintptr_t>(base_) % kHugePage;
    if (misfit != 0) base_ += kHugePage - static_cast<std::int64_t>(misfit);
    // A refusal costs speed only.
    madvise(base_, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
  }
}

HostRange::~HostRange() {
  unpoison(base_, poisoned_);
  munmap(mapping_, static_cast<std::size_t>(mapped_));
}

void HostRange::mark_granted(std::int64_t offset, std::int64_t bytes) {
  const std::int64_t ahead = std::min(bytes_, offset + bytes + kPoisonAhead);
  if (ahead > poisoned_) {
    poison(base_ + poisoned_, ahead - poisoned_);
    poisoned_ = ahead;
  }
  unpoison(base_ + offset, bytes);
}

void HostRange::mark_free(std::int64_t offset, std::int64_t bytes) {
  poison(base_ + offset, bytes);
}

}  // namespace nf::cpu
