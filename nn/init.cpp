#include "nn/init.h"

#include <cmath>

#include "engine/ops/random.h"

namespace nf::nn {

Initializer constant(double value) { return {Initializer::Kind::constant, value}; }

Initializer kaiming_normal_fan_out(std::int64_t out_channels, std::int64_t kernel) {
  const auto fan_out = static_cast<double>(out_channels * kernel * kernel);
  return {Initializer::Kind::normal, std::sqrt(2.0 / fan_out)};
}

Initializer uniform_fan_in(std::int64_t inputs) {
  return {Initializer::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(inputs))};
}

void initialise(Tensor& value, const Initializer& init, RandomAddress at) {
  switch (init.kind) {
    case Initializer::Kind::constant:
      return value.backend().fill(value.mutable_view(), init.value);
    case Initializer::Kind::normal:
      return fill_normal(value, 0.0, init.value, at);
    case Initializer::Kind::uniform:
      return fill_uniform(value, -init.value, init.value, at);
  }
}

}  // namespace nf::nn
