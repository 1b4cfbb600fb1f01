// What tests of trainers share: batches, nets, and what is on the device afterwards.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/random.h"
#include "nn/data/batch_source.h"
#include "nn/model.h"

namespace nf::nn {

/// Random images and labels.
inline Batch random_batch(const ModelOptions& options, std::int64_t size, std::uint64_t seed = 1) {
  RandomStream random(random_key(seed, Purpose::test));
  Batch batch;
  batch.size = size;
  for (std::int64_t i = 0; i < size * options.input.numel(); ++i)
    batch.images.push_back(random.normal());
  for (std::int64_t i = 0; i < size; ++i)
    batch.labels.push_back(
        static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(options.classes))));
  return batch;
}

/// Samples begin..end-1.
inline Batch part_of(const Batch& batch, std::int64_t begin, std::int64_t end) {
  const std::int64_t pixels = std::ssize(batch.images) / batch.size;
  Batch part;
  part.size = end - begin;
  part.images.assign(batch.images.begin() + begin * pixels, batch.images.begin() + end * pixels);
  part.labels.assign(batch.labels.begin() + begin, batch.labels.begin() + end);
  return part;
}

/// Three units of convolutions and max pooling, without batch norm: a sample's gradient depends on
/// that sample alone.
inline std::unique_ptr<Model> plain_model(double dropout = 0.0) {
  const ModelOptions options{.input = {8, 6, 2}, .classes = 3, .dropout = dropout};
  std::vector<std::unique_ptr<Unit>> units;
  std::int64_t channels = options.input[2];
  for (const char* name : {"a", "b", "c"}) {
    auto layers = std::make_unique<Sequential>();
    layers->emplace<Conv2d>(std::string(name) + ".conv", channels, 8, 3, ConvOptions{.padding = 1});
    if (channels == 8) layers->emplace<MaxPool>(Pool2dOptions{.kernel = 2});
    channels = 8;
    units.push_back(std::make_unique<Unit>(name, channels, std::move(layers)));
  }
  return std::make_unique<Model>("plain", options, std::move(units),
                                 make_classifier("linear", channels, options.classes, dropout));
}

inline StateDict state_of(const Module& module) {
  StateDict state;
  module.save(state);
  return state;
}

}  // namespace nf::nn
