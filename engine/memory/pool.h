// The one source of device memory: a best-fit pool inside a range that never exceeds the budget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/memory/recycled.h"
#include "engine/memory/scope.h"

namespace nf {

class MemoryTrace;

/// A contiguous range of device addresses that a pool hands out pieces of.
class AddressRange {
 public:
  virtual ~AddressRange() = default;
  virtual std::byte* base() const = 0;
  virtual std::int64_t bytes() const = 0;
  /// The pool tells which pieces may be touched, so that a checker can report use after free.
  virtual void mark_granted(std::int64_t /*offset*/, std::int64_t /*bytes*/) {}
  virtual void mark_free(std::int64_t /*offset*/, std::int64_t /*bytes*/) {}
};

struct LiveAllocation {
  std::int64_t asked = 0;
  std::int64_t granted = 0;
  Category category = Category::activation;
  std::string op;
  std::string unit;
};

/// What a pool holds now and held at most.
struct PoolStats {
  std::int64_t limit = 0;
  std::int64_t live = 0;           ///< bytes granted now
  std::int64_t reserved = 0;       ///< end of the highest granted piece: live bytes and holes
  std::int64_t peak_live = 0;      ///< since the last reset_peak
  std::int64_t peak_reserved = 0;  ///< since the last reset_peak; what a budget is held against
  BytesByCategory by_category{};   ///< live bytes
  std::int64_t allocations = 0;    ///< since the pool was made
  std::int64_t granted_ever = 0;   ///< bytes, freed ones included, since the pool was made
};

/// A request that the budget can't meet. The message is one line with all figures.
class OutOfBudget : public Error {
 public:
  OutOfBudget(const std::string& message, std::int64_t asked, PoolStats stats,
              std::int64_t largest_hole, std::vector<LiveAllocation> biggest)
      : Error(message),
        asked(asked),
        stats(stats),
        largest_hole(largest_hole),
        biggest(std::move(biggest)) {}

  std::int64_t asked;
  PoolStats stats;
  std::int64_t largest_hole;
  std::vector<LiveAllocation> biggest;  ///< the largest live pieces, largest first
};

/// Best fit with coalescing. A request goes to the smallest hole that holds it (the lowest of
/// equals) and only where there is none to the end of what is reserved: so the sequence of
/// addresses does not depend on the limit, and a peak found without one is exact under it.
class Pool {
 public:
  /// `alignment` is the granularity in bytes (a power of two): every grant is a multiple of it.
  Pool(std::unique_ptr<AddressRange> range, std::int64_t alignment);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Grants `bytes` rounded up to the granularity; 0 bytes take one granule.
  /// Throws OutOfBudget when neither a hole nor the rest of the range is large enough.
  std::byte* allocate(std::int64_t bytes, Category category);
  /// Takes back what allocate granted. Any other address, also one freed before, is an error of the
  /// program that would corrupt what others hold: it says so on stderr and aborts.
  void free(std::byte* address) noexcept;

  PoolStats stats() const;
  /// Peaks restart from what is held now.
  void reset_peak();
  /// Raises the peaks to those of requests that were made before from the same layout, and are not
  /// made again now though their memory is used again.
  void note_peaks(std::int64_t live, std::int64_t reserved);
  /// (offset, bytes) of what is granted now, by offset: it decides which addresses any sequence of
  /// requests is granted from here on.
  std::vector<std::pair<std::int64_t, std::int64_t>> layout() const;
  bool traced() const;
  /// Every later event is recorded there until it is set to null.
  void set_trace(MemoryTrace* trace);

  std::int64_t granted(std::int64_t bytes) const;

 private:
  struct Live {
    std::int64_t asked, granted;
    Category category;
    std::string_view op, unit;  // which stay
  };
  using Holes = RecycledMap<std::int64_t, std::int64_t>;  // offset -> bytes

  std::int64_t largest_hole() const;
  [[noreturn]] void throw_out_of_budget(std::int64_t bytes, Category category) const;
  void add_hole(std::int64_t offset, std::int64_t bytes);
  void remove_hole(Holes::iterator hole);

  std::unique_ptr<AddressRange> range_;
  std::int64_t alignment_;
  mutable std::mutex mutex_;
  RecycledMap<std::int64_t, Live> live_;  // by offset
  Holes holes_;
  RecycledSet<std::pair<std::int64_t, std::int64_t>> by_size_;  // (bytes, offset) of each hole
  PoolStats stats_;
  MemoryTrace* trace_ = nullptr;
};

}  // namespace nf
