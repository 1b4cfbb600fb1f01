// IDX files, the format of MNIST and Fashion-MNIST: raw or gzip, told apart by content.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace nf::nn {

struct IdxFile {
  std::vector<std::int64_t> extents;  // outermost first, 1 to 6 of them
  std::vector<std::uint8_t> data;     // their product in bytes, row-major
};

/// Reads an IDX file of unsigned bytes (type 0x08). Throws DataError, naming the file and the byte
/// offset in the uncompressed stream, for a missing, truncated, oversized or otherwise damaged
/// file. Memory grows with the bytes that are really there, whatever the header promises.
IdxFile read_idx(const std::filesystem::path& path);

}  // namespace nf::nn
