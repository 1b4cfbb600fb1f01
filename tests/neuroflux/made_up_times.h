// Times that no device has, to see what a plan makes of them.
#pragma once

#include <cstdint>

#include "neuroflux/time_model.h"

namespace nf {

/// A sample takes a tenth of the time in batches of 4 that it takes in the largest.
class SmallBatchesAreFast : public TimeModel {
 public:
  static constexpr std::int64_t kFastest = 4;

  const char* source() const override { return "made up"; }
  PassTimes unit(const LocalUnit&, const Shape&, std::int64_t max_batch) override {
    return passes(max_batch);
  }
  PassTimes whole(nn::Model&, const nn::Segments&, std::int64_t max_batch) override {
    return passes(max_batch);
  }
  StorageSpeed storage() override { return {.write = 1e9, .read = 1e9}; }

 private:
  static BatchTime in_proportion(std::int64_t batch, double seconds_per_sample) {
    return BatchTime({{batch, seconds_per_sample * static_cast<double>(batch)}});
  }
  static PassTimes passes(std::int64_t max_batch) {
    PassTimes times;
    times.stage = times.evaluate = times.forward = in_proportion(1, 1e-5);
    times.train = in_proportion(max_batch, 1e-3);
    if (max_batch > kFastest)
      times.train = BatchTime({{kFastest, 1e-4 * static_cast<double>(kFastest)},
                               {max_batch, 1e-3 * static_cast<double>(max_batch)}});
    return times;
  }
};

}  // namespace nf
