#include "nn/init.h"

#include <cmath>

#include "engine/error.h"

namespace nf::nn {

Initializer constant(double value) { return {Initializer::Kind::constant, value}; }

Initializer kaiming_normal_fan_out(std::int64_t out_channels, std::int64_t kernel) {
  const auto fan_out = static_cast<double>(out_channels * kernel * kernel);
  return {Initializer::Kind::normal, std::sqrt(2.0 / fan_out)};
}

Initializer uniform_fan_in(std::int64_t inputs) {
  return {Initializer::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(inputs))};
}

std::vector<float> initial_values(const Initializer& init, std::int64_t count,
                                  RandomStream random) {
  NF_CHECK(count >= 0, "init: the number of values must not be negative, got {}", count);
  const auto scale = static_cast<float>(init.value);
  std::vector<float> values(static_cast<std::size_t>(count), scale);
  if (init.kind == Initializer::Kind::normal)
    for (float& value : values) value = scale * random.normal();
  if (init.kind == Initializer::Kind::uniform)
    for (float& value : values) value = scale * (2.0F * random.uniform() - 1.0F);
  return values;
}

}  // namespace nf::nn
