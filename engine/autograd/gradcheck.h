// Compares the tape's gradients with central finite differences in double precision.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/autograd/tape.h"

namespace nf {

struct GradcheckOptions {
  double step = 1e-5;
  /// Largest allowed |analytic - numeric| / max(1, |analytic|, |numeric|).
  double tolerance = 1e-6;
  /// At most this many elements of each input are perturbed, drawn at random, always the same.
  std::int64_t max_elements = 64;
};

struct GradcheckResult {
  bool passed = true;
  double worst = 0;
  std::string message;  ///< input, element, both values of the worst element
};

/// `function` maps the inputs (f64 leaves) to one tensor, recording on the tape it is given. Its
/// output is contracted with fixed weights, so that all of its elements count.
GradcheckResult gradcheck(const std::function<Tensor(Tape*, const std::vector<Tensor>&)>& function,
                          const std::vector<Tensor>& inputs, const GradcheckOptions& options = {});

}  // namespace nf
