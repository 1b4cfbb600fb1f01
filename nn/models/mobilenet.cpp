#include "nn/models/mobilenet.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "nn/models/width.h"

namespace nf::nn {
namespace {

bool small_image(const ModelOptions& options) {
  return std::max(options.input[0], options.input[1]) <= 64;
}

/// Convolution PREFIX.0 and batch norm PREFIX.1.
std::unique_ptr<ConvBnAct> conv_bn(const std::string& prefix, std::int64_t in, std::int64_t out,
                                   std::int64_t kernel, const ConvBnOptions& options) {
  return std::make_unique<ConvBnAct>(prefix + ".0", prefix + ".1", in, out, kernel, options);
}

/// Expansion (unless its factor is 1), depthwise convolution, linear projection; the input is added
/// where shapes allow.
class InvertedResidual : public Module {
 public:
  InvertedResidual(const std::string& name, std::int64_t in, std::int64_t out,
                   std::int64_t expansion, std::int64_t stride)
      : residual_(stride == 1 && in == out) {
    const std::int64_t hidden = in * expansion;
    int index = 0;
    const auto next = [&] { return fmt::format("{}.conv.{}", name, index++); };
    if (expansion != 1)
      body_.add(conv_bn(next(), in, hidden, 1, {.activation = Activation::relu6}));
    body_.add(conv_bn(next(), hidden, hidden, 3,
                      {.stride = stride, .groups = hidden, .activation = Activation::relu6}));
    const std::string conv_name = next(), bn_name = next();
    projection_ = std::make_unique<ConvBnAct>(conv_name, bn_name, hidden, out, 1,
                                              ConvBnOptions{.activation = Activation::none});
  }

  Tensor forward(const Pass& pass, const Tensor& x) override {
    return projection_->forward(pass, body_.forward(pass, x), residual_ ? x : Tensor());
  }
  Shape output_shape(const Shape& x) const override {
    return projection_->output_shape(body_.output_shape(x));
  }
  std::int64_t first_flops(const Shape& x) const override { return body_.first_flops(x); }
  std::int64_t flops(const Shape& x) const override {
    return body_.flops(x) + projection_->flops(body_.output_shape(x));
  }
  void visit(const std::function<void(Parameter&)>& visitor) override {
    body_.visit(visitor);
    projection_->visit(visitor);
  }
  void fold_batch_norms() override {
    body_.fold_batch_norms();
    projection_->fold_batch_norms();
  }

 private:
  bool residual_;
  Sequential body_;
  std::unique_ptr<ConvBnAct> projection_;
};

struct SeparableBlock {
  std::int64_t out, stride;
};
constexpr std::array<SeparableBlock, 13> kV1Blocks{{{64, 1},
                                                    {128, 2},
                                                    {128, 1},
                                                    {256, 2},
                                                    {256, 1},
                                                    {512, 2},
                                                    {512, 1},
                                                    {512, 1},
                                                    {512, 1},
                                                    {512, 1},
                                                    {512, 1},
                                                    {1024, 2},
                                                    {1024, 1}}};

struct InvertedStage {
  std::int64_t expansion, out, blocks, stride;
};
constexpr std::array<InvertedStage, 7> kV2Stages{{{1, 16, 1, 1},
                                                  {6, 24, 2, 2},
                                                  {6, 32, 3, 2},
                                                  {6, 64, 4, 2},
                                                  {6, 96, 3, 1},
                                                  {6, 160, 3, 2},
                                                  {6, 320, 1, 1}}};

}  // namespace

std::unique_ptr<Model> make_mobilenet_v1(const ModelOptions& options) {
  check_model_options(options);
  std::vector<std::unique_ptr<Unit>> units;
  std::int64_t in = divisible_channels(32, options.width);
  const std::int64_t stem_stride = small_image(options) ? 1 : 2;
  units.push_back(std::make_unique<Unit>(
      "stem", in, conv_bn("features.0", options.input[2], in, 3, {.stride = stem_stride})));
  for (const SeparableBlock& block : kV1Blocks) {
    const std::int64_t out = divisible_channels(block.out, options.width);
    const std::string prefix = fmt::format("features.{}", units.size());
    auto layers = std::make_unique<Sequential>();
    layers->add(conv_bn(prefix + ".0", in, in, 3, {.stride = block.stride, .groups = in}));
    layers->add(conv_bn(prefix + ".1", in, out, 1, {}));
    units.push_back(
        std::make_unique<Unit>(fmt::format("block{}", units.size()), out, std::move(layers)));
    in = out;
  }
  return std::make_unique<Model>(
      "mobilenet_v1", options, std::move(units),
      make_classifier("classifier", in, options.classes, options.dropout));
}

std::unique_ptr<Model> make_mobilenet_v2(const ModelOptions& options) {
  check_model_options(options);
  const bool small = small_image(options);
  std::vector<std::unique_ptr<Unit>> units;
  std::int64_t in = divisible_channels(32, options.width);
  units.push_back(
      std::make_unique<Unit>("stem", in,
                             conv_bn("features.0", options.input[2], in, 3,
                                     {.stride = small ? 1 : 2, .activation = Activation::relu6})));
  for (std::size_t stage = 0; stage < kV2Stages.size(); ++stage) {
    const InvertedStage& plan = kV2Stages[stage];
    const std::int64_t out = divisible_channels(plan.out, options.width);
    const std::int64_t first_stride = small && stage == 1 ? 1 : plan.stride;
    for (std::int64_t i = 0; i < plan.blocks; ++i) {
      const std::string name = fmt::format("features.{}", units.size());
      units.push_back(
          std::make_unique<Unit>(fmt::format("block{}", units.size()), out,
                                 std::make_unique<InvertedResidual>(name, in, out, plan.expansion,
                                                                    i == 0 ? first_stride : 1)));
      in = out;
    }
  }
  const std::int64_t last = divisible_channels(1280, std::max(1.0, options.width));
  units.push_back(std::make_unique<Unit>("last", last,
                                         conv_bn(fmt::format("features.{}", units.size()), in, last,
                                                 1, {.activation = Activation::relu6})));
  return std::make_unique<Model>(
      "mobilenet_v2", options, std::move(units),
      make_classifier("classifier.1", last, options.classes, options.dropout));
}

}  // namespace nf::nn
