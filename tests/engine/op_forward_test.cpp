// Every operator's result against the reference, on every path through the CPU backend.
#include "tests/support/expect.h"

namespace nf::test {
namespace {

class OpForward : public ::testing::TestWithParam<std::tuple<DevicePath, std::string>> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(std::get<0>(GetParam())); }
};

TEST_P(OpForward, MatchesTheReference) {
  const auto& [path, op] = GetParam();
  const ContextPtr context = path.context(kThreads);
  for (const Instance& instance : instances(op, path.dtype)) {
    const Tensor y = instance.run(nullptr, input_tensors(instance, context, path.dtype));
    ASSERT_EQ(y.shape(), instance.output) << instance.name;
    const DType dtype = instance.statistics ? statistics_dtype(path.dtype) : path.dtype;
    ASSERT_EQ(y.dtype(), dtype) << instance.name;
    EXPECT_FALSE(y.requires_grad()) << instance.name;
    double allowed = tolerance(instance.output_bound, path.eps());
    if (instance.statistics) {
      expect_close(to_values(y), instance.forward(), allowed, instance.name);
      continue;
    }
    allowed += path.rounding() * instance.output_bound.stored + 2 * path.least_rounding();
    expect_close(to_values(y), instance.forward(), allowed, instance.name, path.rounding());
  }
  EXPECT_EQ(context->pool().stats().live, 0) << "an operator kept memory";
}

TEST_P(OpForward, RecordingDoesNotChangeTheResult) {
  const auto& [path, op] = GetParam();
  const ContextPtr context = path.context(kThreads);
  for (const Instance& instance : instances(op, path.dtype)) {
    if (!instance.recorded) continue;
    std::vector<Tensor> inputs = input_tensors(instance, context, path.dtype);
    const Values plain = to_values(instance.run(nullptr, inputs));
    Tape unwanted;
    instance.run(&unwanted, inputs);
    EXPECT_TRUE(unwanted.nodes().empty()) << instance.name << ": recorded though nobody asked";
    for (Tensor& input : inputs) input.set_requires_grad(true);
    Tape tape;
    const Tensor y = instance.run(&tape, inputs);
    EXPECT_EQ(tape.nodes().size(), 1U) << instance.name;
    EXPECT_TRUE(y.requires_grad()) << instance.name;
    expect_close(to_values(y), plain, 0, instance.name);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpForward,
                         ::testing::Combine(::testing::ValuesIn(all_paths()),
                                            ::testing::ValuesIn(operator_names())),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + std::string("_") +
                                  std::get<1>(info.param);
                         });

}  // namespace
}  // namespace nf::test
