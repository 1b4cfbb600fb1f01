// Weights files: the safetensors format, a JSON header and raw little-endian values.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nn/state_dict.h"

namespace nf::nn {

struct Weights {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
};

/// Writes F32 in PyTorch's layout: tensors of four dimensions are turned from (O, KH, KW, I) to
/// (O, I, KH, KW). The file appears under its name complete or not at all. Throws Error naming the
/// file when it can't be written, or for a tensor whose values don't fill its shape.
void write_safetensors(const std::filesystem::path& path, const Weights& weights);

/// A tensor that lies somewhere else.
struct NamedTensor {
  std::string name;
  const HostTensor* tensor = nullptr;
};
/// The same without a copy of all values; names must differ.
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

/// Reads F32, F16 and BF16 and turns tensors of four dimensions back. PyTorch's integer
/// num_batches_tracked are left out. Throws DataError with the file, the rule and the value for
/// anything that is not a whole, sound file.
Weights read_safetensors(const std::filesystem::path& path);

}  // namespace nf::nn
