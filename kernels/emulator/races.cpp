#include "kernels/emulator/races.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace nf::simt::emulator {
namespace {

constexpr std::size_t kMostPages = 1 << 15;  // of shadow memory: 1.9 GiB
constexpr std::uint32_t kLanes = 32;
// Later ones count as this: missed rather than invented.
constexpr std::uint32_t kLastTime = (1U << 20) - 1;
constexpr std::uint32_t kThreadBits = (1U << 10) - 1;

}  // namespace

void RaceDetector::start() {
  if (scope_ == std::numeric_limits<std::uint32_t>::max() || pages_.size() > kMostPages) {
    pages_.clear();
    recent_.fill({});
    scope_ = 0;
  }
  ++scope_;
}

void RaceDetector::Page::split(std::uintptr_t smaller) {
  std::vector<Cell> split(kPageBytes / smaller);
  for (std::size_t i = 0; i < split.size(); ++i) split[i] = cells[i * smaller / element];
  cells = std::move(split);
  element = smaller;
}

RaceDetector::Page& RaceDetector::page(std::uintptr_t address) {
  const std::uintptr_t number = address / kPageBytes;
  Recent& recent = recent_[number % recent_.size()];
  if (recent.number != number) {
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    recent = {number, page.get()};
  }
  return *recent.page;
}

bool RaceDetector::note(std::uintptr_t address, std::uint32_t bytes, AccessKind kind,
                        const Moment& now, Conflict& conflict) {
  // The largest power of two, up to 4, that the access is made of.
  const std::uintptr_t element = std::uintptr_t{1}
                                 << std::min(2, std::countr_zero(address | bytes));
  const std::uintptr_t end = address + bytes;
  while (address < end) {
    Page& here = page(address);
    if (element < here.element) here.split(element);
    const std::uintptr_t stop = std::min(end, (address / kPageBytes + 1) * kPageBytes);
    for (; address < stop; address += here.element)
      if (note_element(here.cells[address % kPageBytes / here.element], kind, now, conflict))
        return true;
  }
  return false;
}

// Whether not all of the mark's accesses are ordered before now.
bool RaceDetector::conflicts(const Mark& mark, const Moment& now, bool wrote,
                             Conflict& conflict) const {
  if (mark.scope != scope_) return false;
  const bool elsewhere = mark.block != now.block || mark.many_blocks;
  if (!elsewhere && mark.epoch != now.epoch) return false;
  conflict = {mark.block, mark.thread, wrote, false};
  if (elsewhere || mark.many_warps || mark.thread / kLanes != now.thread / kLanes) return true;
  const std::uint32_t lanes = now.order.unordered(mark.lanes, mark.warp_time, now.thread % kLanes);
  if (lanes == 0) return false;
  conflict.same_warp = true;
  conflict.thread =
      now.thread / kLanes * kLanes + static_cast<std::uint32_t>(std::countr_zero(lanes));
  return true;
}

// Adds an access that does not conflict; those ordered before it are forgotten.
void RaceDetector::join(Mark& mark, const Moment& now) const {
  const std::uint32_t lane = now.thread % kLanes;
  Mark joined{.scope = scope_,
              .block = now.block,
              .epoch = now.epoch,
              .lanes = 1U << lane,
              .warp_time = std::min(now.order.now(), kLastTime) & kLastTime,
              .thread = now.thread & kThreadBits};
  if (mark.scope == scope_) {
    joined.many_blocks = mark.many_blocks != 0 || mark.block != now.block;
    if (mark.block == now.block && mark.epoch == now.epoch) {
      const bool same_warp = mark.thread / kLanes == now.thread / kLanes;
      joined.many_warps = mark.many_warps != 0 || !same_warp;
      const std::uint32_t others =
          same_warp ? now.order.unordered(mark.lanes, mark.warp_time, lane) : 0;
      if (others != 0) {
        joined.lanes |= others;
        joined.warp_time = mark.warp_time;
      }
    }
  }
  mark = joined;
}

bool RaceDetector::note_element(Cell& cell, AccessKind kind, const Moment& now,
                                Conflict& conflict) const {
  if (conflicts(cell.writes, now, true, conflict)) return true;
  if (kind != AccessKind::atomic && conflicts(cell.atomics, now, true, conflict)) return true;
  if (kind != AccessKind::read && conflicts(cell.reads, now, false, conflict)) return true;
  join(kind == AccessKind::read    ? cell.reads
       : kind == AccessKind::write ? cell.writes
                                   : cell.atomics,
       now);
  return false;
}

}  // namespace nf::simt::emulator
