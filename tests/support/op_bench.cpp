#include "tests/support/op_bench.h"

#include <algorithm>
#include <cmath>

#include "engine/random.h"
#include "kernels/half.h"
#include "tests/support/op_builders.h"

namespace nf::test {
namespace {

struct Entry {
  const char* name;
  std::vector<Instance> (*build)();
};
constexpr Entry kOperators[] = {
    {"conv2d", conv2d_instances},
    {"conv2d_fused", conv2d_fused_instances},
    {"linear", linear_instances},
    {"batch_norm", batch_norm_train_instances},
    {"batch_norm_eval", batch_norm_eval_instances},
    {"batch_norm_fold", batch_norm_fold_instances},
    {"max_pool", max_pool_instances},
    {"avg_pool", avg_pool_instances},
    {"adaptive_avg_pool", adaptive_avg_pool_instances},
    {"relu", relu_instances},
    {"relu6", relu6_instances},
    {"add", add_instances},
    {"scale", scale_instances},
    {"sum", sum_instances},
    {"mean", mean_instances},
    {"unrecorded_reductions", unrecorded_reduction_instances},
    {"reshape", reshape_instances},
    {"dropout", dropout_instances},
    {"softmax_cross_entropy", cross_entropy_instances},
    {"softmax_cross_entropy_with_gradient", cross_entropy_with_gradient_instances},
};

}  // namespace

namespace {

thread_local DType storage_of_instances = DType::f32;

}  // namespace

DType storage() { return storage_of_instances; }

bool has_16_bits(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }

double stored(DType storage, double value) {
  const auto narrow = static_cast<float>(value);
  if (storage == DType::f16) return static_cast<double>(f16_to_float(float_to_f16(narrow)));
  if (storage == DType::bf16) return static_cast<double>(bf16_to_float(float_to_bf16(narrow)));
  return static_cast<double>(narrow);
}

double rms(const Values& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return values.empty() ? 0.0 : std::sqrt(sum / static_cast<double>(values.size()));
}

double largest(const Values& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

Bound sum_of(std::int64_t length, double term) {
  return {length, term * std::sqrt(static_cast<double>(length))};
}

Instance start(const std::string& op, const std::string& name, const Shape& output) {
  Instance instance;
  instance.name = op + ", " + name;
  instance.output = output;
  instance.dy = random_values(output.numel(), instance.name + " dy", -1, 1, storage());
  return instance;
}

void add_input(Instance& instance, const std::string& name, const Shape& shape, double low,
               double high) {
  instance.inputs.push_back(
      {name, shape,
       random_values(shape.numel(), instance.name + " " + name, low, high, storage())});
}

void add_statistics(Instance& instance, const std::string& name, const Shape& shape, double low,
                    double high) {
  add_input(instance, name, shape, low, high);
  instance.inputs.back().statistics = true;
}

Tensor optional_input(const std::vector<Tensor>& inputs, std::size_t i) {
  return i < inputs.size() ? inputs[i] : Tensor();
}

void move_from_kinks(Instance& t, Activation activation, double distance,
                     const std::function<Values()>& z) {
  if (activation == Activation::none) return;
  // Halfway to the largest number below 6.
  const double upper = storage() == DType::bf16  ? 6 - 0x1p-6
                       : storage() == DType::f16 ? 6 - 0x1p-9
                                                 : 6;
  for (int draw = 0;; ++draw) {
    const Values values = z();
    const bool far = std::all_of(values.begin(), values.end(), [&](double v) {
      return std::abs(v) > distance &&
             (activation == Activation::relu || std::abs(v - upper) > distance);
    });
    if (far) return;
    for (Instance::Input& input : t.inputs)
      if (input.name == "x" || input.name == "beta")
        for (double& value : input.values) value = stored(storage(), value * 1.01);
    NF_CHECK(draw < 1000, "test: {} keeps meeting a kink", t.name);
  }
}

double tolerance(const Bound& bound, double eps) {
  return 4 * eps * std::sqrt(static_cast<double>(bound.length)) * bound.scale;
}

const std::vector<std::string>& operator_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Entry& entry : kOperators) all.emplace_back(entry.name);
    return all;
  }();
  return names;
}

std::vector<Instance> instances(const std::string& op, DType storage) {
  storage_of_instances = storage;
  for (const Entry& entry : kOperators)
    if (op == entry.name) return entry.build();
  fail("test: no operator is called '{}'", op);
}

Values random_values(std::int64_t n, const std::string& name, double low, double high,
                     DType storage) {
  RandomStream random(random_key(hash_name(name), Purpose::test));
  Values values(static_cast<std::size_t>(n));
  for (double& value : values)
    value = stored(storage, low + (high - low) * static_cast<double>(random.uniform()));
  return values;
}

Tensor to_tensor(const ContextPtr& context, const Shape& shape, const Values& values, DType dtype,
                 Category category) {
  if (dtype == DType::f64) return Tensor::from_host<double>(context, shape, values, category);
  if (has_16_bits(dtype)) {
    std::vector<std::uint16_t> halves;
    for (const double value : values) {
      const auto narrow = static_cast<float>(value);
      halves.push_back(dtype == DType::f16 ? float_to_f16(narrow) : float_to_bf16(narrow));
    }
    Tensor tensor = Tensor::empty(context, shape, dtype, category);
    tensor.copy_from_host(halves.data());
    return tensor;
  }
  const std::vector<float> narrow(values.begin(), values.end());
  return Tensor::from_host<float>(context, shape, narrow, category);
}

Values to_values(const Tensor& tensor) {
  if (tensor.dtype() == DType::f64) return tensor.to_host<double>();
  if (has_16_bits(tensor.dtype())) {
    std::vector<std::uint16_t> halves(static_cast<std::size_t>(tensor.numel()));
    tensor.copy_to_host(halves.data());
    Values values;
    for (const std::uint16_t half : halves)
      values.push_back(static_cast<double>(tensor.dtype() == DType::f16 ? f16_to_float(half)
                                                                        : bf16_to_float(half)));
    return values;
  }
  const std::vector<float> narrow = tensor.to_host<float>();
  return Values(narrow.begin(), narrow.end());
}

std::vector<Tensor> input_tensors(const Instance& instance, const ContextPtr& context,
                                  DType dtype) {
  std::vector<Tensor> tensors;
  for (const Instance::Input& input : instance.inputs)
    tensors.push_back(to_tensor(context, input.shape, input.values,
                                input.statistics ? statistics_dtype(dtype) : dtype));
  return tensors;
}

}  // namespace nf::test
