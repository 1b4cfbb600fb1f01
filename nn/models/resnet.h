// ResNet: He et al., "Deep residual learning for image recognition", CVPR 2016.
#pragma once

#include <memory>

#include "nn/model.h"

namespace nf::nn {

/// depth 18, 34 or 50; other depths are an Error. Units are the stem and each residual block.
/// Names and strides as torchvision's (the 3x3 convolution of a bottleneck carries the stride).
/// Up to 64 pixels the stem is a 3x3 convolution, above it is 7x7 of stride 2 and a max-pool.
std::unique_ptr<Model> make_resnet(int depth, const ModelOptions& options);

}  // namespace nf::nn
