// What of an optimizer's update differs from step to step, as its kernel takes it: by value, or
// from device memory, where a replayed update finds that of its own step.
#pragma once

#include <cmath>
#include <cstdint>

namespace nf {

struct UpdateScalars {
  float rate = 0;  ///< learning rate; for adamw with the correction of the first moment
  float keep = 1;  ///< adamw: 1 - learning rate * weight decay
  float root = 1;  ///< adamw: 1 / sqrt of the correction of the second moment
};

/// Where a replayed update reads. All is device memory; null: by value, or not guarded.
struct UpdateSource {
  const UpdateScalars* scalars = nullptr;
  /// Nothing is updated where one of these is infinite or NaN.
  const float* loss = nullptr;
  const float* norm = nullptr;
};

inline UpdateScalars sgd_scalars(double learning_rate) {
  return {.rate = static_cast<float>(learning_rate)};
}

/// `step` counts from 1.
inline UpdateScalars adamw_scalars(double learning_rate, double beta1, double beta2,
                                   double weight_decay, std::int64_t step) {
  const auto steps = static_cast<double>(step);
  const double correction1 = 1.0 - std::pow(beta1, steps);
  const double correction2 = 1.0 - std::pow(beta2, steps);
  return {.rate = static_cast<float>(learning_rate / correction1),
          .keep = static_cast<float>(1.0 - learning_rate * weight_decay),
          .root = static_cast<float>(1.0 / std::sqrt(correction2))};
}

}  // namespace nf
