// Every operator's gradients against finite differences in double precision.
#include "engine/autograd/gradcheck.h"
#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

// Thousands of tiny passes: threads would spend their time waiting for each other.
ContextPtr single_threaded() { return kCpuPaths[2].context(1); }

class OpGradcheck : public ::testing::TestWithParam<std::string> {};

TEST_P(OpGradcheck, AgreesWithFiniteDifferences) {
  const ContextPtr context = single_threaded();
  for (const Instance& t : instances(GetParam())) {
    if (!t.recorded || !t.gradcheck) continue;
    const std::int64_t probes = t.output.numel() > 5000 ? 4 : 32;
    const GradcheckResult result =
        gradcheck([&](Tape* tape, const std::vector<Tensor>& in) { return t.run(tape, in); },
                  input_tensors(t, context, DType::f64), {.max_elements = probes});
    EXPECT_TRUE(result.passed) << t.name << ": " << result.message;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpGradcheck, ::testing::ValuesIn(operator_names()),
                         [](const auto& info) { return info.param; });

// A wrong gradient must be caught, or the test above says nothing.
TEST(Gradcheck, CatchesAWrongGradient) {
  const ContextPtr context = single_threaded();
  class Doubled : public Node {
   public:
    Doubled() : Node("doubled") {}
    void backward(Tensor dy, Gradients& gradients) override { gradients.give(0, std::move(dy)); }
  };
  const auto function = [](Tape* tape, const std::vector<Tensor>& in) {
    const Tensor y = add(nullptr, in[0], in[0]);
    if (Tape::wanted(tape, {&in[0]})) tape->record(std::make_unique<Doubled>(), {&in[0]}, y);
    return y;
  };
  const Tensor x = to_tensor(context, {3}, {0.5, -1, 2}, DType::f64);
  const GradcheckResult result = gradcheck(function, {x});
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.message.find("input 0 element"), std::string::npos) << result.message;
}

// A block with a shortcut, where one tensor feeds two operators of different kinds.
TEST(Gradcheck, ResidualBlock) {
  const ContextPtr context = single_threaded();
  const auto function = [&](Tape* tape, const std::vector<Tensor>& in) {
    const auto state = [&](std::size_t i) {
      return BatchNormState{in[i], in[i + 1], Tensor::full(context, {3}, 0, DType::f64),
                            Tensor::full(context, {3}, 1, DType::f64)};
    };
    BatchNormState first = state(3), second = state(5);
    const Tensor x = conv2d(tape, in[0], in[1], {}, {.padding = 1});
    const Tensor h = batch_norm(tape, x, {}, first, {.activation = Activation::relu});
    const Tensor y = conv2d(tape, h, in[2], {}, {.padding = 1});
    const Tensor out = batch_norm(tape, y, x, second, {.activation = Activation::relu});
    return adaptive_avg_pool(tape, add(tape, out, x), 2, 2);
  };
  const auto input = [&](const Shape& shape, const char* name, double low, double high) {
    return to_tensor(context, shape, random_values(shape.numel(), name, low, high), DType::f64);
  };
  const GradcheckResult result = gradcheck(
      function, {input({2, 5, 4, 2}, "x", -1, 1), input({3, 3, 3, 2}, "w1", -1, 1),
                 input({3, 3, 3, 3}, "w2", -1, 1), input({3}, "g1", 0.5, 2),
                 input({3}, "b1", -1, 1), input({3}, "g2", 0.5, 2), input({3}, "b2", -1, 1)});
  EXPECT_TRUE(result.passed) << result.message;
}

}  // namespace
}  // namespace nf::test
