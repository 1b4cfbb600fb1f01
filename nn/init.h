// First values of parameters: a rule each parameter carries, so that it needs no memory to have
// one.
#pragma once

#include <cstdint>

#include "engine/tensor.h"

namespace nf::nn {

struct Initializer {
  enum class Kind : std::uint8_t { constant, normal, uniform };
  Kind kind = Kind::constant;
  /// The constant, the standard deviation around 0, or the bound b of [-b, b).
  double value = 0;
  bool operator==(const Initializer&) const = default;
};

Initializer constant(double value);
/// He et al., "Delving deep into rectifiers", ICCV 2015, by fan-out as PyTorch counts it: output
/// channels times the window, whatever the number of groups.
Initializer kaiming_normal_fan_out(std::int64_t out_channels, std::int64_t kernel);
/// PyTorch's default of a linear layer: uniform within 1 / sqrt(inputs).
Initializer uniform_fan_in(std::int64_t inputs);

/// Gives `value` its first values under that rule, on its device: the same bits on each.
void initialise(Tensor& value, const Initializer& init, RandomAddress at);

}  // namespace nf::nn
