#include "engine/autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "engine/random.h"

namespace nf {
namespace {

double contract(const Tensor& output, const std::vector<double>& weights) {
  const std::vector<double> values = output.to_host<double>();
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
  return sum;
}

}  // namespace

GradcheckResult gradcheck(const std::function<Tensor(Tape*, const std::vector<Tensor>&)>& function,
                          const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  NF_CHECK(options.max_elements >= 1, "gradcheck: max_elements must be at least 1, got {}",
           options.max_elements);
  for (const Tensor& input : inputs)
    NF_CHECK(input.dtype() == DType::f64, "gradcheck: inputs must be f64, got {}",
             to_string(input.dtype()));
  for (Tensor input : inputs) {
    input.clear_grad();
    input.set_requires_grad(true);
  }
  Tape tape;
  const Tensor output = function(&tape, inputs);
  std::vector<double> weights(static_cast<std::size_t>(output.numel()));
  RandomStream random(random_key(1, Purpose::test));
  for (double& weight : weights) weight = static_cast<double>(random.normal());
  tape.backward(output, Tensor::from_host<double>(output.context(), output.shape(), weights));

  GradcheckResult result;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    Tensor input = inputs[k];
    NF_CHECK(static_cast<bool>(input.grad()), "gradcheck: no gradient reached input {}", k);
    const std::vector<double> analytic = input.grad().to_host<double>();
    std::vector<double> values = input.to_host<double>();
    // Even steps could miss the same channels all the way.
    RandomStream pick(random_key(1, Purpose::test), k + 1);
    std::vector<std::int64_t> probed = permutation(input.numel(), pick);
    probed.resize(static_cast<std::size_t>(std::min(input.numel(), options.max_elements)));
    for (const std::int64_t i : probed) {
      const auto at = static_cast<std::size_t>(i);
      const double original = values[at];
      const auto probe = [&](double value) {
        values[at] = value;
        input.copy_from_host(values.data());
        return contract(function(nullptr, inputs), weights);
      };
      const double above = probe(original + options.step);
      const double below = probe(original - options.step);
      probe(original);
      const double numeric = (above - below) / (2 * options.step);
      const double scale = std::max({1.0, std::abs(analytic[at]), std::abs(numeric)});
      const double error = std::abs(analytic[at] - numeric) / scale;
      if (!(error <= result.worst) && !std::isnan(result.worst)) {
        result.worst = error;
        result.message = fmt::format("input {} element {}: analytic {:.10g}, numeric {:.10g}", k, i,
                                     analytic[at], numeric);
      }
    }
  }
  // Written so that a NaN fails.
  result.passed = result.worst <= options.tolerance;
  return result;
}

}  // namespace nf
