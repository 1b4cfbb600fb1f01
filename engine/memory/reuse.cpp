#include "engine/memory/reuse.h"

#include <algorithm>
#include <iterator>

namespace nf {

void ReuseTracker::granted(std::int64_t offset, std::int64_t bytes, std::uint64_t calls) {
  const std::lock_guard lock(mutex_);
  const std::int64_t end = offset + std::max<std::int64_t>(bytes, 1);
  std::uint64_t before = 0;
  auto past = past_.upper_bound(offset);
  if (past != past_.begin()) --past;
  for (; past != past_.end() && past->first < end; ++past)
    if (past->second.end > offset) before = std::max(before, past->second.calls);
  live_[offset] = {end, calls, before};
}

void ReuseTracker::freed(std::int64_t offset, std::int64_t bytes, std::uint64_t calls) {
  const std::lock_guard lock(mutex_);
  live_.erase(offset);
  const std::int64_t end = offset + bytes;
  auto past = past_.upper_bound(offset);
  if (past != past_.begin()) --past;
  while (past != past_.end() && past->first < end) {
    const auto [begin, what] = *past;
    if (what.end <= offset) {
      ++past;
      continue;
    }
    past = past_.erase(past);
    if (begin < offset) past_[begin] = {offset, what.calls};
    if (what.end > end) past_[end] = what;
  }
  past_[offset] = {end, calls};
}

std::uint64_t ReuseTracker::calls_before_write(std::int64_t offset, std::uint64_t calls) const {
  const std::lock_guard lock(mutex_);
  auto piece = live_.upper_bound(offset);
  if (piece == live_.begin()) return calls;
  piece = std::prev(piece);
  const bool untouched = offset < piece->second.end && piece->second.granted == calls;
  return untouched ? piece->second.before : calls;
}

}  // namespace nf
