// Races between the threads of a launch, by what each element of memory remembers.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels/emulator/access.h"
#include "kernels/emulator/warp_order.h"

namespace nf::simt::emulator {

/// Who accesses, and when: accesses of a block are ordered by its barriers (epoch), those of a warp
/// also by the warp's own (order).
struct Moment {
  std::uint32_t block = 0;
  std::uint32_t epoch = 0;
  std::uint32_t thread = 0;
  const WarpOrder& order;
};

/// Finds races by shadow memory: for each element the last writes, atomics and reads. An element
/// has 4 bytes until an access to fewer splits its page of memory into smaller ones.
class RaceDetector {
 public:
  /// Forgets all: what came before is ordered before what comes. (A launch; for shared memory a
  /// block.)
  void start();
  struct Conflict {
    std::uint32_t block;
    std::uint32_t thread;  // one of those in conflict, if known, else who accesses
    bool wrote;
    bool same_warp;  // all of those in conflict
  };
  /// Notes an access; true where it conflicts with an earlier one, which `conflict` then tells.
  bool note(std::uintptr_t address, std::uint32_t bytes, AccessKind kind, const Moment& now,
            Conflict& conflict);

 private:
  // Accesses not ordered among themselves. By one thread mostly; of those by several, the lanes of
  // the warp that came last are kept, of the others that there were some.
  struct Mark {
    std::uint32_t scope = 0;  // in which start it was made; an older one counts for nothing
    std::uint32_t block = 0;
    std::uint32_t epoch = 0;
    std::uint32_t lanes = 0;
    // The oldest of `lanes`: where masks are partial a race may be missed, but none invented.
    std::uint32_t warp_time : 20 = 0;
    std::uint32_t thread : 10 = 0;
    std::uint32_t many_warps : 1 = 0;
    std::uint32_t many_blocks : 1 = 0;
  };
  struct Cell {
    Mark writes, atomics, reads;
  };
  static constexpr std::uintptr_t kPageBytes = 4096;
  struct Page {
    std::uintptr_t element = 4;  // bytes
    std::vector<Cell> cells = std::vector<Cell>(kPageBytes / 4);
    void split(std::uintptr_t smaller);
  };

  Page& page(std::uintptr_t address);
  bool note_element(Cell& cell, AccessKind kind, const Moment& now, Conflict& conflict) const;
  bool conflicts(const Mark& mark, const Moment& now, bool wrote, Conflict& conflict) const;
  void join(Mark& mark, const Moment& now) const;

  std::uint32_t scope_ = 0;
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  // The pages last used, by the low bits of their number.
  struct Recent {
    std::uintptr_t number = ~std::uintptr_t{0};
    Page* page = nullptr;
  };
  std::array<Recent, 64> recent_{};
};

}  // namespace nf::simt::emulator
