// VGG with batch norm: Simonyan and Zisserman, "Very deep convolutional networks", ICLR 2015.
#pragma once

#include <memory>

#include "nn/model.h"

namespace nf::nn {

/// depth 11, 13, 16 or 19; other depths are an Error. A unit is convolution (without bias), batch
/// norm, ReLU and the max-pool that follows; a pool is left out where the map is below 2x2.
/// Names as torchvision's vgg11_bn: features.N; the head is one linear layer, "classifier".
std::unique_ptr<Model> make_vgg(int depth, const ModelOptions& options);

}  // namespace nf::nn
