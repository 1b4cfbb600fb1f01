#include "nn/models/vgg.h"

#include <array>
#include <utility>
#include <vector>

#include "nn/models/width.h"

namespace nf::nn {
namespace {

constexpr int kVggStages = 5;
constexpr std::array<std::int64_t, kVggStages> kVggChannels{64, 128, 256, 512, 512};

/// Convolutions in each stage; a max-pool ends a stage.
std::array<int, kVggStages> convolutions_per_stage(int depth) {
  switch (depth) {
    case 11:
      return {1, 1, 2, 2, 2};
    case 13:
      return {2, 2, 2, 2, 2};
    case 16:
      return {2, 2, 3, 3, 3};
    case 19:
      return {2, 2, 4, 4, 4};
    default:
      fail("vgg: depth must be 11, 13, 16 or 19, got {}", depth);
  }
}

}  // namespace

std::unique_ptr<Model> make_vgg(int depth, const ModelOptions& options) {
  check_model_options(options);
  const std::array<int, kVggStages> sizes = convolutions_per_stage(depth);
  std::vector<std::unique_ptr<Unit>> units;
  std::int64_t height = options.input[0], width = options.input[1], in = options.input[2];
  int index = 0;  // in PyTorch's flat list: convolution, batch norm, ReLU, pool
  for (std::size_t stage = 0; stage < kVggStages; ++stage) {
    const std::int64_t out = scaled_channels(kVggChannels[stage], options.width);
    for (int i = 0; i < sizes[stage]; ++i) {
      auto layers = std::make_unique<Sequential>();
      layers->emplace<ConvBnAct>(fmt::format("features.{}", index),
                                 fmt::format("features.{}", index + 1), in, out, 3);
      index += 3;
      in = out;
      if (i + 1 == sizes[stage]) {
        ++index;
        if (height >= 2 && width >= 2) {
          layers->emplace<MaxPool>();
          height /= 2;
          width /= 2;
        }
      }
      units.push_back(
          std::make_unique<Unit>(fmt::format("conv{}", units.size() + 1), out, std::move(layers)));
    }
  }
  return std::make_unique<Model>(
      fmt::format("vgg{}", depth), options, std::move(units),
      make_classifier("classifier", in, options.classes, options.dropout));
}

}  // namespace nf::nn
