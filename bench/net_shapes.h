// The layers of VGG-16, ResNet-18 and MobileNetV1 on 32x32 colour images, equal ones listed once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/backend.h"

namespace nf::bench {

struct ConvLayer {
  std::string net;
  std::string layer;       ///< the first of those that are alike
  std::int64_t count = 1;  ///< how many of them the net has
  std::int64_t size = 1;   ///< height and width of the input
  std::int64_t in = 1, out = 1, kernel = 3, stride = 1;
  bool depthwise = false;

  std::string name() const { return net + "/" + layer; }
  /// Padded so that stride 1 keeps the map's size.
  Conv2dProblem problem(std::int64_t batch) const;
};

struct LinearLayer {
  std::string net;
  std::int64_t in = 1, out = 1;
};

/// A pooling layer; `to` is the side of its output.
struct PoolLayer {
  std::string net;
  std::string layer;
  std::int64_t size = 1, channels = 1, to = 1;

  std::string name() const { return net + "/" + layer; }
};

const std::vector<ConvLayer>& conv_layers();
const std::vector<LinearLayer>& linear_layers();
const std::vector<PoolLayer>& max_pool_layers();
/// Heads of the nets, and the pooling of early maps to 8x8 before an auxiliary network.
const std::vector<PoolLayer>& adaptive_pool_layers();

/// Of a forward pass, two per multiply-add.
double flops(const Conv2dProblem& problem);
double flops(const LinearProblem& problem);

/// Throws Error unless the tables add up to the FLOPs of the nets that the model zoo builds.
void check_against_models();

}  // namespace nf::bench
