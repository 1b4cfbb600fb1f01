// Every operator's gradients against the reference: alone, accumulated, and shared.
#include <algorithm>

#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

class OpGradient : public ::testing::TestWithParam<std::tuple<DevicePath, std::string>> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(path()); }
  const DevicePath& path() const { return std::get<0>(GetParam()); }
  std::vector<Instance> recorded() const {
    std::vector<Instance> all = instances(std::get<1>(GetParam()), path().dtype);
    std::erase_if(all, [](const Instance& t) { return !t.recorded; });
    return all;
  }
  DType output_dtype(const Instance& t) const {
    return t.statistics ? statistics_dtype(path().dtype) : path().dtype;
  }
  Tensor seed(const Instance& t, const ContextPtr& context) const {
    return to_tensor(context, t.output, t.dy, output_dtype(t), Category::activation_gradient);
  }
  /// Holds the gradient of input `i` against `times` the reference.
  void expect_gradient(const Instance& t, const Tensor& input, std::size_t i,
                       const std::vector<Values>& expected, int times = 1) const {
    const std::string what = t.name + ", gradient of " + t.inputs[i].name;
    ASSERT_TRUE(input.grad()) << what << " is missing";
    ASSERT_EQ(input.grad().shape(), t.inputs[i].shape) << what;
    Values wanted = expected[i];
    double size = 0;
    for (double& value : wanted) size = std::max(size, std::abs(value *= times));
    // Adding up `times` results rounds each sum once more.
    double allowed = times * tolerance(t.gradient_bounds[i], path().eps());
    if (times > 1) allowed += times * path().eps() * size;
    if (t.inputs[i].statistics) return expect_close(to_values(input.grad()), wanted, allowed, what);
    // In 16 bits each of `times` results g is rounded, and each sum 2g, 3g, …
    const double roundings = t.roundings * times + times * (times + 1) / 2.0 - 1;
    allowed += ((t.roundings + 1) * times - 1) * path().least_rounding();
    expect_close(to_values(input.grad()), wanted, allowed, what,
                 path().rounding() * roundings / times);
  }
};

TEST_P(OpGradient, MatchesTheReference) {
  const ContextPtr context = path().context(kThreads);
  for (const Instance& t : recorded()) {
    std::vector<Tensor> inputs = input_tensors(t, context, path().dtype);
    for (Tensor& input : inputs) input.set_requires_grad(true);
    Tape tape;
    tape.backward(t.run(&tape, inputs), seed(t, context));
    const std::vector<Values> expected = t.backward();
    for (std::size_t i = 0; i < inputs.size(); ++i) expect_gradient(t, inputs[i], i, expected);
  }
}

TEST_P(OpGradient, SecondPassAddsToTheFirst) {
  const ContextPtr context = path().context(kThreads);
  for (const Instance& t : recorded()) {
    std::vector<Tensor> inputs = input_tensors(t, context, path().dtype);
    for (Tensor& input : inputs) input.set_requires_grad(true);
    Tape tape;
    for (int pass = 0; pass < 2; ++pass) tape.backward(t.run(&tape, inputs), seed(t, context));
    const std::vector<Values> expected = t.backward();
    for (std::size_t i = 0; i < inputs.size(); ++i) expect_gradient(t, inputs[i], i, expected, 2);
  }
}

// Each of three branches gets a gradient that the others may share, and all add to one input that
// is no leaf.
TEST_P(OpGradient, BranchesOfOneInputAddUp) {
  const ContextPtr context = path().context(kThreads);
  for (const Instance& t : recorded()) {
    std::vector<Tensor> inputs = input_tensors(t, context, path().dtype);
    for (Tensor& input : inputs) input.set_requires_grad(true);
    Tape tape;
    std::vector<Tensor> shared;
    for (const Tensor& input : inputs) shared.push_back(reshape(&tape, input, input.shape()));
    const Tensor two = add(&tape, t.run(&tape, shared), t.run(&tape, shared));
    tape.backward(add(&tape, two, t.run(&tape, shared)), seed(t, context));
    const std::vector<Values> expected = t.backward();
    for (std::size_t i = 0; i < inputs.size(); ++i) expect_gradient(t, inputs[i], i, expected, 3);
  }
}

TEST_P(OpGradient, EachInputAlone) {
  const ContextPtr context = path().context(kThreads);
  for (const Instance& t : recorded()) {
    const std::vector<Values> expected = t.backward();
    for (std::size_t i = 0; i < t.inputs.size(); ++i) {
      std::vector<Tensor> inputs = input_tensors(t, context, path().dtype);
      inputs[i].set_requires_grad(true);
      Tape tape;
      tape.backward(t.run(&tape, inputs), seed(t, context));
      expect_gradient(t, inputs[i], i, expected);
      for (std::size_t other = 0; other < inputs.size(); ++other)
        EXPECT_TRUE(other == i || !inputs[other].grad()) << t.name << ", " << t.inputs[other].name;
    }
  }
  EXPECT_EQ(context->pool().stats().live, 0) << "a backward pass kept memory";
}

// The sum hands one gradient to both sides; whoever comes first must not write over it.
TEST_P(OpGradient, LeavesASharedGradientAlone) {
  const ContextPtr context = path().context(kThreads);
  for (const Instance& t : recorded()) {
    std::vector<Tensor> inputs = input_tensors(t, context, path().dtype);
    for (Tensor& input : inputs) input.set_requires_grad(true);
    Tensor other = Tensor::full(context, t.output, 0, output_dtype(t));
    other.set_requires_grad(true);
    Tape tape;
    const Tensor beside = reshape(&tape, other, t.output);
    tape.backward(add(&tape, t.run(&tape, inputs), beside), seed(t, context));
    expect_close(to_values(other.grad()), t.dy, 0, t.name);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpGradient,
                         ::testing::Combine(::testing::ValuesIn(all_paths()),
                                            ::testing::ValuesIn(operator_names())),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + std::string("_") +
                                  std::get<1>(info.param);
                         });

}  // namespace
}  // namespace nf::test
