// What the emulator makes of the accesses of one launch: faults, races, memory behaviour.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/emulator/emulator.h"

namespace nf::simt::emulator {

enum class AccessKind : std::uint8_t { read, write, atomic };

struct Access {
  const void* instruction;
  std::uintptr_t address;
  std::uint32_t bytes;
  AccessKind kind;
};

/// Who accesses, and when: accesses of a block are ordered by its barriers (epoch), those of a warp
/// also by the warp's own (warp_epoch).
struct Moment {
  std::uint32_t block = 0;
  std::uint16_t epoch = 0;
  std::uint16_t warp_epoch = 0;
  std::uint16_t thread = 0;
};

/// Finds races by shadow memory: for each element the last write and the last reads. An element has
/// 4 bytes until an access to fewer splits its page of memory into smaller ones.
class RaceDetector {
 public:
  /// Forgets all: what came before is ordered before what comes. (A launch; for shared memory a
  /// block.)
  void start();
  struct Conflict {
    Moment other;
    bool other_wrote;
  };
  /// Notes an access; true where it conflicts with an earlier one, which `conflict` then tells.
  bool note(std::uintptr_t address, std::uint32_t bytes, AccessKind kind, const Moment& now,
            Conflict& conflict);

 private:
  struct Mark {
    std::uint32_t scope = 0;  // in which start it was made; an older one counts for nothing
    Moment when{};
    std::uint8_t flags = 0;
  };
  struct Cell {
    Mark write, read;
  };
  static constexpr std::uintptr_t kPageBytes = 4096;
  struct Page {
    std::uintptr_t element = 4;  // bytes
    std::vector<Cell> cells = std::vector<Cell>(kPageBytes / 4);
    void split(std::uintptr_t smaller);
  };

  Page& page(std::uintptr_t address);
  bool note_element(Cell& cell, AccessKind kind, const Moment& now, Conflict& conflict) const;

  std::uint32_t scope_ = 0;
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  // The pages last used, by the low bits of their number.
  struct Recent {
    std::uintptr_t number = ~std::uintptr_t{0};
    Page* page = nullptr;
  };
  std::array<Recent, 64> recent_{};
};

/// Puts the accesses of a warp's lanes together into requests and counts them.
class BehaviourCounter {
 public:
  void start_launch() { footprint_.clear(); }
  /// The accesses of each lane between two points where the warp comes together.
  void count(const std::vector<std::vector<Access>>& lanes, std::uintptr_t shared_begin,
             std::uintptr_t shared_end, KernelBehaviour& total);
  /// 32 * distinct sectors of global memory since start_launch.
  std::int64_t footprint_bytes() const;

 private:
  struct Member {
    int lane;
    const Access* access;
  };
  void count_request(const std::vector<Member>& members, bool shared, KernelBehaviour& total);

  std::unordered_map<std::uintptr_t, std::array<std::uint64_t, 2>> footprint_;  // 4 KiB pages
  std::vector<Member> members_;
};

}  // namespace nf::simt::emulator
