// MobileNets, nets of depthwise-separable convolutions.
#pragma once

#include <memory>

#include "nn/model.h"

namespace nf::nn {

/// Howard et al., "MobileNets", 2017. Units are the stem and each depthwise-separable block. The
/// stem's stride is 2 for images above 64 pixels, else 1. Names: features.0.0 (convolution),
/// features.0.1 (batch norm) of the stem; features.K.0.x (depthwise), features.K.1.x (pointwise).
std::unique_ptr<Model> make_mobilenet_v1(const ModelOptions& options);

/// Sandler et al., "MobileNetV2", CVPR 2018, with ReLU6 and torchvision's names. Units are the
/// stem, each inverted residual and the last 1x1 convolution. For images up to 64 pixels the stem
/// and the stage of 24 channels have stride 1, as is usual on CIFAR.
std::unique_ptr<Model> make_mobilenet_v2(const ModelOptions& options);

}  // namespace nf::nn
