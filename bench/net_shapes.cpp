#include "bench/net_shapes.h"

#include "engine/error.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

constexpr std::int64_t kClasses = 10;

ConvLayer conv(const std::string& net, const std::string& layer, std::int64_t count,
               std::int64_t size, std::int64_t in, std::int64_t out, std::int64_t kernel = 3,
               std::int64_t stride = 1) {
  return {net, layer, count, size, in, out, kernel, stride, false};
}

ConvLayer depthwise(const std::string& net, const std::string& layer, std::int64_t count,
                    std::int64_t size, std::int64_t channels, std::int64_t stride = 1) {
  return {net, layer, count, size, channels, channels, 3, stride, true};
}

}  // namespace

Conv2dProblem ConvLayer::problem(std::int64_t batch) const {
  return {.n = batch,
          .h = size,
          .w = size,
          .c = in,
          .o = out,
          .kh = kernel,
          .kw = kernel,
          .stride = stride,
          .padding = kernel / 2,
          .groups = depthwise ? in : 1};
}

const std::vector<ConvLayer>& conv_layers() {
  static const std::vector<ConvLayer> layers{
      conv("vgg16", "conv1", 1, 32, 3, 64),
      conv("vgg16", "conv2", 1, 32, 64, 64),
      conv("vgg16", "conv3", 1, 16, 64, 128),
      conv("vgg16", "conv4", 1, 16, 128, 128),
      conv("vgg16", "conv5", 1, 8, 128, 256),
      conv("vgg16", "conv6", 2, 8, 256, 256),
      conv("vgg16", "conv8", 1, 4, 256, 512),
      conv("vgg16", "conv9", 2, 4, 512, 512),
      conv("vgg16", "conv11", 3, 2, 512, 512),

      conv("resnet18", "stem", 1, 32, 3, 64),
      conv("resnet18", "layer1.0.conv1", 4, 32, 64, 64),
      conv("resnet18", "layer2.0.conv1", 1, 32, 64, 128, 3, 2),
      conv("resnet18", "layer2.0.downsample", 1, 32, 64, 128, 1, 2),
      conv("resnet18", "layer2.0.conv2", 3, 16, 128, 128),
      conv("resnet18", "layer3.0.conv1", 1, 16, 128, 256, 3, 2),
      conv("resnet18", "layer3.0.downsample", 1, 16, 128, 256, 1, 2),
      conv("resnet18", "layer3.0.conv2", 3, 8, 256, 256),
      conv("resnet18", "layer4.0.conv1", 1, 8, 256, 512, 3, 2),
      conv("resnet18", "layer4.0.downsample", 1, 8, 256, 512, 1, 2),
      conv("resnet18", "layer4.0.conv2", 3, 4, 512, 512),

      conv("mobilenet_v1", "stem", 1, 32, 3, 32),
      depthwise("mobilenet_v1", "block1.depthwise", 1, 32, 32),
      conv("mobilenet_v1", "block1.pointwise", 1, 32, 32, 64, 1),
      depthwise("mobilenet_v1", "block2.depthwise", 1, 32, 64, 2),
      conv("mobilenet_v1", "block2.pointwise", 1, 16, 64, 128, 1),
      depthwise("mobilenet_v1", "block3.depthwise", 1, 16, 128),
      conv("mobilenet_v1", "block3.pointwise", 1, 16, 128, 128, 1),
      depthwise("mobilenet_v1", "block4.depthwise", 1, 16, 128, 2),
      conv("mobilenet_v1", "block4.pointwise", 1, 8, 128, 256, 1),
      depthwise("mobilenet_v1", "block5.depthwise", 1, 8, 256),
      conv("mobilenet_v1", "block5.pointwise", 1, 8, 256, 256, 1),
      depthwise("mobilenet_v1", "block6.depthwise", 1, 8, 256, 2),
      conv("mobilenet_v1", "block6.pointwise", 1, 4, 256, 512, 1),
      depthwise("mobilenet_v1", "block7.depthwise", 5, 4, 512),
      conv("mobilenet_v1", "block7.pointwise", 5, 4, 512, 512, 1),
      depthwise("mobilenet_v1", "block12.depthwise", 1, 4, 512, 2),
      conv("mobilenet_v1", "block12.pointwise", 1, 2, 512, 1024, 1),
      depthwise("mobilenet_v1", "block13.depthwise", 1, 2, 1024),
      conv("mobilenet_v1", "block13.pointwise", 1, 2, 1024, 1024, 1),
  };
  return layers;
}

const std::vector<LinearLayer>& linear_layers() {
  static const std::vector<LinearLayer> layers{
      {"vgg16", 512, kClasses}, {"resnet18", 512, kClasses}, {"mobilenet_v1", 1024, kClasses}};
  return layers;
}

const std::vector<PoolLayer>& max_pool_layers() {
  static const std::vector<PoolLayer> layers{{"vgg16", "pool1", 32, 64, 16},
                                             {"vgg16", "pool2", 16, 128, 8},
                                             {"vgg16", "pool3", 8, 256, 4},
                                             {"vgg16", "pool4", 4, 512, 2},
                                             {"vgg16", "pool5", 2, 512, 1}};
  return layers;
}

const std::vector<PoolLayer>& adaptive_pool_layers() {
  static const std::vector<PoolLayer> layers{{"resnet18", "head", 4, 512, 1},
                                             {"mobilenet_v1", "head", 2, 1024, 1},
                                             {"auxiliary", "32x32x64_to_8x8", 32, 64, 8},
                                             {"auxiliary", "16x16x128_to_8x8", 16, 128, 8}};
  return layers;
}

double flops(const Conv2dProblem& problem) {
  return 2.0 * static_cast<double>(problem.n * problem.out_h() * problem.out_w() * problem.o *
                                   problem.kh * problem.kw * (problem.c / problem.groups));
}

double flops(const LinearProblem& problem) {
  return 2.0 * static_cast<double>(problem.n * problem.i * problem.o);
}

void check_against_models() {
  for (const LinearLayer& head : linear_layers()) {
    double listed = flops(LinearProblem{.n = 1, .i = head.in, .o = head.out});
    for (const ConvLayer& layer : conv_layers())
      if (layer.net == head.net)
        listed += static_cast<double>(layer.count) * flops(layer.problem(1));
    const auto model = nn::make_model(head.net, {.input = {32, 32, 3}, .classes = kClasses});
    const auto built = static_cast<double>(model->flops(model->input_shape(1)));
    NF_CHECK(listed == built,
             "bench: the layers listed for {} take {:.0f} FLOP, the net takes {:.0f}", head.net,
             listed, built);
  }
}

}  // namespace nf::bench
