#include "kernels/emulator/behaviour.h"

#include <algorithm>
#include <bit>
#include <tuple>

namespace nf::simt::emulator {
namespace {

constexpr std::uintptr_t kSector = 32;

}  // namespace

void BehaviourCounter::count(const std::vector<std::vector<Access>>& lanes,
                             std::uintptr_t shared_begin, std::uintptr_t shared_end,
                             KernelBehaviour& total) {
  // One request: the k-th access of each lane by the same instruction.
  struct Key {
    const void* instruction;
    std::uint32_t occurrence;
    std::uint32_t lane;
    const Access* access;
  };
  const auto is_shared = [&](const Access& access) {
    return access.address >= shared_begin && access.address < shared_end;
  };
  // Lanes that went the same way need no sorting.
  const std::vector<Access>* longest = nullptr;
  for (const auto& lane : lanes)
    if (longest == nullptr || lane.size() > longest->size()) longest = &lane;
  if (longest == nullptr || longest->empty()) return;
  const bool alike = std::all_of(lanes.begin(), lanes.end(), [&](const auto& lane) {
    return lane.empty() ||
           (lane.size() == longest->size() && std::equal(lane.begin(), lane.end(), longest->begin(),
                                                         [](const Access& a, const Access& b) {
                                                           return a.instruction == b.instruction;
                                                         }));
  });
  if (alike) {
    for (std::size_t i = 0; i < longest->size(); ++i) {
      members_.clear();
      for (std::size_t lane = 0; lane < lanes.size(); ++lane)
        if (!lanes[lane].empty()) members_.push_back({static_cast<int>(lane), &lanes[lane][i]});
      count_request(members_, is_shared((*longest)[i]), total);
    }
    return;
  }
  std::vector<Key> keys;
  std::unordered_map<const void*, std::uint32_t> seen;
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    seen.clear();
    for (const Access& access : lanes[lane])
      keys.push_back({access.instruction, seen[access.instruction]++,
                      static_cast<std::uint32_t>(lane), &access});
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return std::tie(a.instruction, a.occurrence, a.lane) <
           std::tie(b.instruction, b.occurrence, b.lane);
  });
  for (std::size_t begin = 0, end = 0; begin < keys.size(); begin = end) {
    members_.clear();
    for (end = begin; end < keys.size() && keys[end].instruction == keys[begin].instruction &&
                      keys[end].occurrence == keys[begin].occurrence;
         ++end)
      members_.push_back({static_cast<int>(keys[end].lane), keys[end].access});
    count_request(members_, is_shared(*keys[begin].access), total);
  }
}

void BehaviourCounter::count_request(const std::vector<Member>& members, bool shared,
                                     KernelBehaviour& total) {
  if (!shared) {
    const AccessKind kind = members.front().access->kind;
    Traffic& traffic = kind == AccessKind::read    ? total.loads
                       : kind == AccessKind::write ? total.stores
                                                   : total.atomics;
    ++traffic.requests;
    std::array<std::uintptr_t, 32 * 17> sectors{};
    std::size_t count = 0;
    for (const Member& member : members) {
      const Access& access = *member.access;
      traffic.bytes_asked += access.bytes;
      for (std::uintptr_t s = access.address / kSector;
           s <= (access.address + access.bytes - 1) / kSector; ++s)
        // Neighbours mostly share their sector.
        if (count == 0 || sectors[count - 1] != s) sectors[count++] = s;
    }
    std::sort(sectors.begin(), sectors.begin() + static_cast<std::ptrdiff_t>(count));
    const auto end =
        std::unique(sectors.begin(), sectors.begin() + static_cast<std::ptrdiff_t>(count));
    traffic.sectors += end - sectors.begin();
    for (auto s = sectors.begin(); s != end; ++s)
      footprint_[*s / 128][*s % 128 / 64] |= std::uint64_t{1} << (*s % 64);
    return;
  }
  ++total.shared_requests;
  // A pass serves 128 bytes: all lanes at up to 4 bytes each, half of them at 8, a quarter at 16.
  const std::uint32_t width = members.front().access->bytes;
  const int lanes_together = width <= 4 ? 32 : width <= 8 ? 16 : 8;
  for (int first = 0; first < 32; first += lanes_together) {
    std::array<std::uintptr_t, 32 * 5> words{};
    std::size_t count = 0;
    for (const Member& member : members)
      if (member.lane >= first && member.lane < first + lanes_together)
        for (std::uintptr_t w = member.access->address / 4;
             w <= (member.access->address + member.access->bytes - 1) / 4; ++w)
          words[count++] = w;
    if (count == 0) continue;
    std::sort(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(count));
    const auto end = std::unique(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(count));
    std::array<int, 32> bank{};
    for (auto w = words.begin(); w != end; ++w) ++bank[*w % 32];
    const std::int64_t passes = *std::max_element(bank.begin(), bank.end());
    total.shared_passes += passes;
    total.worst_conflict = std::max(total.worst_conflict, passes);
  }
}

std::int64_t BehaviourCounter::footprint_bytes() const {
  std::int64_t sectors = 0;
  for (const auto& [page, bits] : footprint_)
    sectors += std::popcount(bits[0]) + std::popcount(bits[1]);
  return sectors * static_cast<std::int64_t>(kSector);
}

}  // namespace nf::simt::emulator
