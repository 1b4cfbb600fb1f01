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
  /// Size of what 16-bit storage rounds on the way to the result, which it rounds as well.
  double stored = 0;
};

/// Each of `length` additions rounds a partial sum no larger than about `scale` by at most half of
/// eps, independently: a standard deviation below eps / 2 sqrt(length) scale, and eight of those.
double tolerance(const Bound& bound, double eps);

/// One operator at one size.
struct Instance {
  struct Input {
    std::string name;
    Shape shape;
    Values values;            // exact in the storage type
    bool statistics = false;  // f32 beside elements of 16 bits
  };

  std::string name;
  std::vector<Input> inputs;  ///< all of them differentiable unless `recorded` is false
  Shape output;
  Values dy;                ///< gradient of the output for the comparison, exact in its type
  bool statistics = false;  ///< the output is f32 beside inputs of 16 bits
  bool recorded = true;     ///< false: an operator without a backward pass
  int roundings = 1;        ///< of a gradient to 16 bits, all of them to its own size
  bool gradcheck = true;    ///< false: finite differences meet a kink, or cost too much
  std::function<Tensor(Tape*, const std::vector<Tensor>&)> run;
  std::function<Values()> forward;
  std::function<std::vector<Values>()> backward;  ///< one per input
  Bound output_bound;
  std::vector<Bound> gradient_bounds;
};

/// "conv2d", "linear", … in the order of the engine's ops.
const std::vector<std::string>& operator_names();
/// All cases of one operator, with values that are exact in `storage` (and in f32). Throws Error
/// for another name.
std::vector<Instance> instances(const std::string& op, DType storage = DType::f32);

/// The type of what has `statistics` set.
inline DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? dtype : DType::f32; }
/// `value` as f16, bf16 or f32 would hold it; f64 holds it as f32 does, so that all can be
/// compared.
double stored(DType storage, double value);

/// Values as a tensor of a floating type, and back.
Tensor to_tensor(const ContextPtr& context, const Shape& shape, const Values& values, DType dtype,
                 Category category = Category::input);
Values to_values(const Tensor& tensor);
/// The instance's inputs as tensors.
std::vector<Tensor> input_tensors(const Instance& instance, const ContextPtr& context, DType dtype);

/// Uniform in [low, high), each exact in `storage`; the same for the same name.
Values random_values(std::int64_t n, const std::string& name, double low = -1, double high = 1,
                     DType storage = DType::f32);

}  // namespace nf::test
