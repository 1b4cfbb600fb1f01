// Runs trained units over samples in host memory with only one unit on the device at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "neuroflux/local_net.h"
#include "nn/data/batch.h"
#include "nn/state_dict.h"

namespace nf {

/// Samples first..first+n-1 of a data set.
using ReadSamples = std::function<nn::Batch(std::int64_t first, std::int64_t n)>;

/// Called with the features behind a unit before the next one gets them.
using BetweenUnits = std::function<void(std::int64_t unit, std::span<float> features)>;

class StreamedForward {
 public:
  /// `weights` holds all units and classifiers that will be run; `batches` the batch of each unit,
  /// so that no more memory is taken than in its training. All are referred to, not copied.
  StreamedForward(ContextPtr context, const LocalNet& net, const nn::StateDict& weights,
                  std::vector<std::int64_t> batches, BetweenUnits between = {});

  /// Output of units 0..last_unit for samples of the net's input, in evaluation mode.
  std::vector<float> outputs(const nn::Batch& samples, std::int64_t last_unit) const;
  /// Samples of a data set of `count` that the exit behind `unit` classifies rightly.
  std::int64_t count_correct(const ReadSamples& read, std::int64_t count, std::int64_t unit) const;

 private:
  ContextPtr context_;
  const LocalNet& net_;
  const nn::StateDict& weights_;
  std::vector<std::int64_t> batches_;
  BetweenUnits between_;
};

}  // namespace nf
