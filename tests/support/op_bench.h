// Every case of every operator with its inputs, the engine's call and the reference's answers.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/autograd/tape.h"
#include "tests/support/reference.h"

namespace nf::test {

using reference::Values;

/// How far rounding may take a result: sums of `length` terms that reach the size of `scale`.
struct Bound {
  std::int64_t length = 1;
  double scale = 0;  ///< 0: the result must be exact
};

/// Each of `length` additions rounds a partial sum no larger than about `scale` by at most half of
/// eps, independently: a standard deviation below eps / 2 sqrt(length) scale, and eight of those.
double tolerance(const Bound& bound, double eps);

/// One operator at one size.
struct Instance {
  struct Input {
    std::string name;
    Shape shape;
    Values values;  // exact in f32
  };

  std::string name;
  std::vector<Input> inputs;  ///< all of them differentiable unless `recorded` is false
  Shape output;
  Values dy;              ///< gradient of the output for the comparison, exact in f32
  bool recorded = true;   ///< false: an operator without a backward pass
  bool gradcheck = true;  ///< false: finite differences meet a kink, or cost too much
  std::function<Tensor(Tape*, const std::vector<Tensor>&)> run;
  std::function<Values()> forward;
  std::function<std::vector<Values>()> backward;  ///< one per input
  Bound output_bound;
  std::vector<Bound> gradient_bounds;
};

/// "conv2d", "linear", … in the order of the engine's ops.
const std::vector<std::string>& operator_names();
/// All cases of one operator. Throws Error for another name.
std::vector<Instance> instances(const std::string& op);

/// Values as a tensor of type f32 or f64, and back.
Tensor to_tensor(const ContextPtr& context, const Shape& shape, const Values& values, DType dtype,
                 Category category = Category::input);
Values to_values(const Tensor& tensor);
/// The instance's inputs as tensors.
std::vector<Tensor> input_tensors(const Instance& instance, const ContextPtr& context, DType dtype);

/// Uniform in [low, high), each exact in f32; the same for the same name.
Values random_values(std::int64_t n, const std::string& name, double low = -1, double high = 1);

}  // namespace nf::test
