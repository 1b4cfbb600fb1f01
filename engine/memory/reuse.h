// When memory of a pool may be written by a stream other than the one that computes on it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace nf {

/// Calls that computed with a piece of memory were made before it was freed; so whoever gets it
/// next need wait for no later ones, as long as nothing was called since. Time is the count of
/// calls.
class ReuseTracker {
 public:
  void granted(std::int64_t offset, std::int64_t bytes, std::uint64_t calls);
  void freed(std::int64_t offset, std::int64_t bytes, std::uint64_t calls);
  /// So many calls, counted from the first, must be done before `offset` may be written.
  std::uint64_t calls_before_write(std::int64_t offset, std::uint64_t calls) const;

 private:
  struct Past {
    std::int64_t end;
    std::uint64_t calls;  // when it was freed last
  };
  struct Piece {
    std::int64_t end;
    std::uint64_t granted;  // calls then
    std::uint64_t before;   // calls that may use what was there before
  };

  mutable std::mutex mutex_;
  std::map<std::int64_t, Past> past_;  // by offset; they do not overlap
  std::map<std::int64_t, Piece> live_;
};

}  // namespace nf
