// Every launcher of the kernels, ready to run at a given size: what `neuroflux kernels` looks at on
// the emulator and bench/kernels_bench times on a GPU. catalogue.cpp is compiled once for each.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/stream.h"

namespace nf {

enum class StorageType : std::uint8_t { f32, bf16, f16 };

constexpr const char* to_string(StorageType storage) {
  return storage == StorageType::f32 ? "f32" : storage == StorageType::bf16 ? "bf16" : "f16";
}

/// A tensor (n, h, w, c) of what most launchers work on; the rest is derived from it.
struct CatalogueSizes {
  std::int64_t n = 8, h = 16, w = 16, c = 64;
  StorageType storage = StorageType::f32;
};

/// Gives memory of the device that the kernels run on, aligned to 256 bytes. It must stay until
/// nothing is launched any more.
using Allocate = std::function<void*(std::int64_t bytes)>;
using Launch = std::function<void(Stream)>;

/// One launcher in one of its uses.
struct CatalogueEntry {
  std::string family;    ///< "batch_norm", as the file is called
  std::string launcher;  ///< "batch_norm_forward_train"
  std::string variant;   ///< "relu"; empty where there is nothing to tell
  /// What the maths must read and write, by the launcher's comment: each operand, small ones
  /// included, as often as it says. No workspace.
  std::int64_t read_bytes = 0, written_bytes = 0;
  /// Allocates the operands and fills them by kernels on the stream. The result may be launched any
  /// number of times.
  std::function<Launch(const Allocate&, Stream)> prepare;

  std::string name() const { return variant.empty() ? launcher : launcher + "/" + variant; }
  std::int64_t must_bytes() const { return read_bytes + written_bytes; }
};

// All extents are at least 1. Entries of a family stand together.
namespace simt {
std::vector<CatalogueEntry> catalogue(const CatalogueSizes& sizes);
}
namespace cuda {
std::vector<CatalogueEntry> catalogue(const CatalogueSizes& sizes);
}

}  // namespace nf
