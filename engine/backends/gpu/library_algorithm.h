// Which of the algorithms that a GPU's library offers is taken.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace nf {

struct LibraryAlgorithm {
  std::int64_t workspace = 0;  ///< bytes
  bool deterministic = true;   ///< the same operands give the same bits
};

/// The index of one of `offered`, which come fastest first; nothing where none is. Of those whose
/// workspace fits the cap the first that is deterministic, else the first. Where none fits, the
/// one with the least workspace: whether the budget has room for it is the pool's to tell. So a
/// lower cap never leads to a larger workspace.
inline std::optional<std::size_t> choose_algorithm(std::span<const LibraryAlgorithm> offered,
                                                   std::int64_t workspace_cap) {
  std::optional<std::size_t> fitting, least;
  for (std::size_t i = 0; i < offered.size(); ++i) {
    const LibraryAlgorithm& algorithm = offered[i];
    if (algorithm.workspace <= workspace_cap) {
      if (algorithm.deterministic) return i;
      if (!fitting) fitting = i;
    }
    if (!least || algorithm.workspace < offered[*least].workspace) least = i;
  }
  return fitting ? fitting : least;
}

}  // namespace nf
