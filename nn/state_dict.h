// Named values in host memory: what a module or an optimizer is when it is on no device.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/shape.h"

namespace nf::nn {

struct HostTensor {
  Shape shape;  ///< engine layout: filters are (O, KH, KW, I)
  std::vector<float> values;
  bool operator==(const HostTensor&) const = default;
};

using StateDict = std::map<std::string, HostTensor>;

}  // namespace nf::nn
