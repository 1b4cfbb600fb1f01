#include "engine/memory/pool.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "engine/memory/trace.h"

namespace nf {

Pool::Pool(std::unique_ptr<AddressRange> range, std::int64_t alignment)
    : range_(std::move(range)), alignment_(alignment) {
  NF_CHECK(alignment >= 1 && (alignment & (alignment - 1)) == 0,
           "pool: alignment must be a power of two, got {}", alignment);
  stats_.limit = range_->bytes();
}

std::int64_t Pool::granted(std::int64_t bytes) const {
  return (std::max<std::int64_t>(bytes, 1) + alignment_ - 1) & ~(alignment_ - 1);
}

std::byte* Pool::allocate(std::int64_t bytes, Category category) {
  NF_CHECK(bytes >= 0, "pool: asked for {} bytes", bytes);
  const std::lock_guard lock(mutex_);
  // A request near 2^63 would overflow when rounded up.
  if (bytes > stats_.limit) throw_out_of_budget(bytes, category);
  const std::int64_t size = granted(bytes);
  std::int64_t offset = 0;
  if (const auto fit = by_size_.lower_bound({size, 0}); fit != by_size_.end()) {
    offset = fit->second;
    const std::int64_t rest = fit->first - size;
    remove_hole(holes_.find(offset));
    if (rest > 0) add_hole(offset + size, rest);
  } else {
    offset = stats_.reserved;
    if (size > stats_.limit - offset) throw_out_of_budget(bytes, category);
    stats_.reserved += size;
  }
  const MemoryTags& tags = memory_tags();
  live_.emplace(offset, Live{bytes, size, category, tags.op, tags.unit});
  stats_.live += size;
  stats_.by_category[static_cast<std::size_t>(category)] += size;
  stats_.peak_live = std::max(stats_.peak_live, stats_.live);
  stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  ++stats_.allocations;
  stats_.granted_ever += bytes;
  range_->mark_granted(offset, bytes);
  std::byte* address = range_->base() + offset;
  if (trace_ != nullptr)
    trace_->record(MemoryAction::allocate, address, bytes, size, stats_, category);
  return address;
}

void Pool::free(std::byte* address) noexcept {
  const std::lock_guard lock(mutex_);
  const auto piece = live_.find(address - range_->base());
  if (piece == live_.end()) {
    std::fprintf(stderr, "pool: asked to free %p, which it did not grant or has back already\n",
                 static_cast<void*>(address));
    std::abort();
  }
  std::int64_t offset = piece->first;
  std::int64_t size = piece->second.granted;
  const Category category = piece->second.category;
  const std::int64_t asked = piece->second.asked;
  live_.erase(piece);
  range_->mark_free(offset, size);
  stats_.live -= size;
  stats_.by_category[static_cast<std::size_t>(category)] -= size;
  const std::int64_t granted_size = size;
  auto next = holes_.lower_bound(offset);
  if (next != holes_.end() && next->first == offset + size) {
    size += next->second;
    auto after = std::next(next);
    remove_hole(next);
    next = after;
  }
  if (next != holes_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      remove_hole(before);
    }
  }
  // A hole at the end is no hole: what is reserved shrinks.
  if (offset + size == stats_.reserved)
    stats_.reserved = offset;
  else
    add_hole(offset, size);
  if (trace_ != nullptr)
    trace_->record(MemoryAction::free, address, asked, granted_size, stats_, category);
}

PoolStats Pool::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Pool::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak_live = stats_.live;
  stats_.peak_reserved = stats_.reserved;
}

void Pool::note_peaks(std::int64_t live, std::int64_t reserved) {
  const std::lock_guard lock(mutex_);
  stats_.peak_live = std::max(stats_.peak_live, live);
  stats_.peak_reserved = std::max(stats_.peak_reserved, reserved);
}

std::vector<std::pair<std::int64_t, std::int64_t>> Pool::layout() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::int64_t, std::int64_t>> pieces;
  pieces.reserve(live_.size());
  for (const auto& [offset, piece] : live_) pieces.emplace_back(offset, piece.granted);
  return pieces;
}

bool Pool::traced() const {
  const std::lock_guard lock(mutex_);
  return trace_ != nullptr;
}

void Pool::set_trace(MemoryTrace* trace) {
  const std::lock_guard lock(mutex_);
  trace_ = trace;
}

void Pool::add_hole(std::int64_t offset, std::int64_t bytes) {
  holes_.emplace(offset, bytes);
  by_size_.emplace(bytes, offset);
}

void Pool::remove_hole(Holes::iterator hole) {
  by_size_.erase({hole->second, hole->first});
  holes_.erase(hole);
}

std::int64_t Pool::largest_hole() const {
  const std::int64_t inside = by_size_.empty() ? 0 : by_size_.rbegin()->first;
  return std::max(inside, stats_.limit - stats_.reserved);
}

void Pool::throw_out_of_budget(std::int64_t bytes, Category category) const {
  std::vector<LiveAllocation> biggest;
  for (const auto& [offset, piece] : live_)
    biggest.push_back({piece.asked, piece.granted, piece.category, std::string(piece.op),
                       std::string(piece.unit)});
  std::stable_sort(biggest.begin(), biggest.end(),
                   [](const auto& a, const auto& b) { return a.granted > b.granted; });
  biggest.resize(std::min<std::size_t>(biggest.size(), 3));
  std::string held;
  for (int i = 0; i < kCategories; ++i)
    if (const auto live = stats_.by_category[static_cast<std::size_t>(i)]; live > 0)
      held += fmt::format("{}{} {}", held.empty() ? "" : ", ", to_string(static_cast<Category>(i)),
                          live);
  std::string largest;
  for (const LiveAllocation& piece : biggest)
    largest += fmt::format("{}{} bytes of {} ({}{}{})", largest.empty() ? "" : ", ", piece.granted,
                           to_string(piece.category), piece.op, piece.unit.empty() ? "" : " in ",
                           piece.unit);
  const MemoryTags& tags = memory_tags();
  const std::string message = fmt::format(
      "out of budget: {}{}{} asked for {} bytes of {}; live {}, reserved {}, limit {}, largest "
      "hole {}; held: {}; biggest: {}",
      tags.op.empty() ? "an allocation" : tags.op, tags.unit.empty() ? "" : " in ", tags.unit,
      bytes, to_string(category), stats_.live, stats_.reserved, stats_.limit, largest_hole(),
      held.empty() ? "nothing" : held, largest.empty() ? "nothing" : largest);
  if (trace_ != nullptr)
    trace_->record(MemoryAction::out_of_budget, nullptr, bytes, 0, stats_, category);
  throw OutOfBudget(message, bytes, stats_, largest_hole(), std::move(biggest));
}

}  // namespace nf
