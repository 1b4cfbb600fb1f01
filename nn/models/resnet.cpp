#include "nn/models/resnet.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "nn/models/width.h"

namespace nf::nn {
namespace {

constexpr std::size_t kResNetStages = 4;
constexpr std::array<std::int64_t, kResNetStages> kResNetChannels{64, 128, 256, 512};

/// Blocks in each stage.
std::array<int, kResNetStages> blocks_per_stage(int depth) {
  switch (depth) {
    case 18:
      return {2, 2, 2, 2};
    case 34:
    case 50:
      return {3, 4, 6, 3};
    default:
      fail("resnet: depth must be 18, 34 or 50, got {}", depth);
  }
}

/// A chain of convolutions, the last of which adds the input, or its projection, before its ReLU.
class ResidualBlock : public Module {
 public:
  struct Convolution {
    std::int64_t out, kernel, stride;
  };

  ResidualBlock(const std::string& name, std::int64_t in,
                const std::vector<Convolution>& convolutions) {
    std::int64_t channels = in, stride = 1;
    for (std::size_t i = 0; i < convolutions.size(); ++i) {
      const Convolution& conv = convolutions[i];
      body_.push_back(std::make_unique<ConvBnAct>(
          fmt::format("{}.conv{}", name, i + 1), fmt::format("{}.bn{}", name, i + 1), channels,
          conv.out, conv.kernel, ConvBnOptions{.stride = conv.stride}));
      channels = conv.out;
      stride *= conv.stride;
    }
    if (stride == 1 && channels == in) return;
    projection_ = std::make_unique<ConvBnAct>(
        name + ".downsample.0", name + ".downsample.1", in, channels, 1,
        ConvBnOptions{.stride = stride, .activation = Activation::none});
  }

  Tensor forward(const Pass& pass, const Tensor& x) override {
    Tensor y = x;
    for (std::size_t i = 0; i + 1 < body_.size(); ++i) y = body_[i]->forward(pass, y);
    const Tensor residual = projection_ ? projection_->forward(pass, x) : x;
    return body_.back()->forward(pass, y, residual);
  }

  Shape output_shape(const Shape& x) const override {
    Shape shape = x;
    for (const auto& layer : body_) shape = layer->output_shape(shape);
    return shape;
  }

  std::int64_t flops(const Shape& x) const override {
    std::int64_t sum = projection_ ? projection_->flops(x) : 0;
    Shape shape = x;
    for (const auto& layer : body_) {
      sum += layer->flops(shape);
      shape = layer->output_shape(shape);
    }
    return sum;
  }

  std::int64_t first_flops(const Shape& x) const override {
    return body_.front()->flops(x) + (projection_ ? projection_->flops(x) : 0);
  }

  void visit(const std::function<void(Parameter&)>& visitor) override {
    for (const auto& layer : body_) layer->visit(visitor);
    if (projection_) projection_->visit(visitor);
  }

  void fold_batch_norms() override {
    for (const auto& layer : body_) layer->fold_batch_norms();
    if (projection_) projection_->fold_batch_norms();
  }

 private:
  std::vector<std::unique_ptr<ConvBnAct>> body_;
  std::unique_ptr<ConvBnAct> projection_;
};

std::unique_ptr<Module> make_stem(const ModelOptions& options, std::int64_t out) {
  const bool small = std::max(options.input[0], options.input[1]) <= 64;
  auto layers = std::make_unique<Sequential>();
  layers->emplace<ConvBnAct>("conv1", "bn1", options.input[2], out, small ? 3 : 7,
                             ConvBnOptions{.stride = small ? 1 : 2});
  if (!small) layers->emplace<MaxPool>(Pool2dOptions{.kernel = 3, .stride = 2, .padding = 1});
  return layers;
}

}  // namespace

std::unique_ptr<Model> make_resnet(int depth, const ModelOptions& options) {
  check_model_options(options);
  const std::array<int, kResNetStages> sizes = blocks_per_stage(depth);
  const bool bottleneck = depth >= 50;
  std::int64_t in = scaled_channels(kResNetChannels[0], options.width);
  std::vector<std::unique_ptr<Unit>> units;
  units.push_back(std::make_unique<Unit>("stem", in, make_stem(options, in)));
  for (std::size_t stage = 0; stage < kResNetStages; ++stage) {
    const std::int64_t planes = scaled_channels(kResNetChannels[stage], options.width);
    const std::int64_t out = bottleneck ? 4 * planes : planes;
    for (int i = 0; i < sizes[stage]; ++i) {
      const std::string name = fmt::format("layer{}.{}", stage + 1, i);
      const std::int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      std::vector<ResidualBlock::Convolution> convolutions{{planes, 3, stride}, {planes, 3, 1}};
      if (bottleneck) convolutions = {{planes, 1, 1}, {planes, 3, stride}, {out, 1, 1}};
      units.push_back(std::make_unique<Unit>(
          name, out, std::make_unique<ResidualBlock>(name, in, convolutions)));
      in = out;
    }
  }
  return std::make_unique<Model>(fmt::format("resnet{}", depth), options, std::move(units),
                                 make_classifier("fc", in, options.classes, options.dropout));
}

}  // namespace nf::nn
