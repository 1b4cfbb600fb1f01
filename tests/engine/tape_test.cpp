#include "engine/autograd/tape.h"

#include <algorithm>

#include "engine/memory/trace.h"
#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

using Floats = std::vector<float>;

Tensor leaf(const ContextPtr& context, const Shape& shape, double value = 1) {
  Tensor tensor = Tensor::full(context, shape, value, DType::f32, Category::parameter);
  return tensor.set_requires_grad(true);
}

/// Passes its gradient on and notes what the pool holds at that moment.
class Probe : public Node {
 public:
  explicit Probe(std::vector<std::int64_t>& live) : Node("probe"), live_(live) {}
  void backward(Tensor dy, Gradients& gradients) override {
    live_.push_back(dy.pool().stats().live);
    gradients.give(0, std::move(dy));
  }

 private:
  std::vector<std::int64_t>& live_;
};

Tensor probe(Tape* tape, const Tensor& x, std::vector<std::int64_t>& live) {
  Tensor y = x.reshaped(x.shape());
  tape->record(std::make_unique<Probe>(live), {&x}, y);
  return y;
}

TEST(Tape, FreesWhatEachNodeSavedAsItGoes) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {1 << 16});
  const std::int64_t bytes = x.bytes();
  Tape tape;
  std::vector<std::int64_t> live;
  Tensor h = x;
  for (int layer = 0; layer < 5; ++layer) h = relu(&tape, probe(&tape, h, live));
  EXPECT_EQ(tape.saved_bytes(), 5 * bytes);
  EXPECT_EQ(c->pool().stats().live, 6 * bytes);
  tape.backward(h);
  // The parameter, the gradient in flight and the outputs of the layers below are all there is;
  // `h` itself still holds the last output.
  EXPECT_EQ(live,
            (std::vector<std::int64_t>{7 * bytes, 6 * bytes, 5 * bytes, 4 * bytes, 3 * bytes}));
  EXPECT_TRUE(tape.nodes().empty());
  EXPECT_EQ(tape.saved_bytes(), 0);
}

TEST(Tape, CountsSharedMemoryOnce) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {64});
  Tape tape;
  const Tensor y = relu(&tape, x);
  // The layer saves the same memory under another shape.
  const Tensor z = reshape(&tape, y, {8, 8});
  const Tensor w = leaf(c, {2, 8});
  linear(&tape, z, w, {});
  EXPECT_EQ(tape.saved_bytes(), y.bytes() + w.bytes());
}

TEST(Tape, ConvolutionFreesItsInputBeforeTheInputsGradient) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2, 8, 8, 16}), w = leaf(c, {16, 3, 3, 16});
  Tape tape;
  Tensor h = add(&tape, x, x);
  const auto address = reinterpret_cast<std::uint64_t>(h.view().data);
  const std::int64_t bytes = h.bytes();
  Tensor y = conv2d(&tape, h, w, {}, {.padding = 1});
  h = Tensor();
  MemoryTrace trace;
  c->pool().set_trace(&trace);
  tape.backward(y);
  c->pool().set_trace(nullptr);
  const auto& events = trace.events();
  const auto freed = std::find_if(events.begin(), events.end(), [&](const MemoryEvent& e) {
    return e.action == MemoryAction::free && e.address == address;
  });
  const auto asked = std::find_if(events.begin(), events.end(), [&](const MemoryEvent& e) {
    return e.action == MemoryAction::allocate && e.op == "conv2d" && e.asked == bytes &&
           e.category == Category::activation_gradient;
  });
  ASSERT_NE(freed, events.end());
  ASSERT_NE(asked, events.end());
  EXPECT_LT(freed - events.begin(), asked - events.begin());
}

TEST(Tape, ComputesNoGradientThatNobodyWants) {
  const ContextPtr c = cpu_context();
  const Tensor images = Tensor::full(c, {4, 8, 8, 3}, 1);
  const Tensor w = leaf(c, {5, 3, 3, 3});
  Tape tape;
  const Tensor y = conv2d(&tape, images, w, {});
  Tensor seed = Tensor::full(c, y.shape(), 1, DType::f32, Category::activation_gradient);
  MemoryTrace trace;
  c->pool().set_trace(&trace);
  tape.backward(y, std::move(seed));
  c->pool().set_trace(nullptr);
  EXPECT_TRUE(w.grad());
  EXPECT_FALSE(images.grad());
  for (const MemoryEvent& e : trace.events())
    EXPECT_FALSE(e.action == MemoryAction::allocate && e.category == Category::activation_gradient)
        << e.asked << " bytes";
}

TEST(Tape, KeepsOnlyWhatTheWantedGradientsNeed) {
  const ContextPtr c = cpu_context();
  const Tensor images = Tensor::full(c, {4, 8, 8, 3}, 1),
               filters = Tensor::full(c, {5, 3, 3, 3}, 1);
  Tape tape;
  conv2d(&tape, images, leaf(c, {5, 3, 3, 3}), {});
  EXPECT_EQ(tape.saved_bytes(), images.bytes());
  tape.clear();
  conv2d(&tape, leaf(c, {4, 8, 8, 3}), filters, {});
  EXPECT_EQ(tape.saved_bytes(), filters.bytes());
}

TEST(Tape, NoticesAnEditOfASavedTensor) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2, 3});
  Tape tape;
  Tensor y = relu(&tape, x);
  const Tensor z = add(&tape, y, y);
  const std::uint64_t version = y.version();
  Tensor row = y.detached().rows(0, 1);
  row.backend().fill(row.mutable_view(), 0);
  EXPECT_EQ(error_text([&] { tape.backward(z); }),
            fmt::format("relu: a tensor saved for the backward pass [2,3] was edited in place "
                        "(version {}, saved {})",
                        version + 1, version));
}

TEST(Tape, BackwardNeedsSomethingToDifferentiate) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2});
  Tape tape;
  const Tensor y = relu(&tape, x);
  const std::string text =
      "backward: the output [2] was not computed from anything that requires a gradient";
  EXPECT_EQ(error_text([&] { tape.backward(y.detached()); }), text);
  EXPECT_EQ(error_text([&] { tape.backward(x); }), text);
  EXPECT_EQ(error_text([&] { tape.backward(relu(&tape, Tensor::full(c, {2}, 1))); }), text);
}

TEST(Tape, TheSeedMustFitTheOutput) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2, 3});
  Tape tape;
  const Tensor y = relu(&tape, x);
  const auto text = [&](const Tensor& seed) { return error_text([&] { tape.backward(y, seed); }); };
  EXPECT_EQ(text(Tensor::full(c, {3, 2}, 1)),
            "backward: the seed must be f32 [2,3] as the output, got f32 [3,2]");
  EXPECT_EQ(text(Tensor::full(c, {2, 3}, 1, DType::f64)),
            "backward: the seed must be f32 [2,3] as the output, got f64 [2,3]");
  EXPECT_EQ(text(Tensor::full(cpu_context(), {2, 3}, 1)),
            "backward: the seed must live in the output's context (output on cpu, seed on cpu)");
  // Nothing had begun.
  EXPECT_EQ(tape.nodes().size(), 1U);
  tape.backward(y, Tensor::full(c, {2, 3}, 2));
  EXPECT_EQ(x.grad().to_host<float>(), Floats(6, 2));
}

TEST(Tape, AThrowOnTheWayEmptiesTheRecord) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {4});
  class Refusing : public Node {
   public:
    Refusing() : Node("refusing") {}
    void backward(Tensor, Gradients&) override { fail("refused"); }
  };
  Tape tape;
  Tensor y = relu(&tape, x);
  const Tensor z = y.detached();
  tape.record(std::make_unique<Refusing>(), {&y}, z);
  y = Tensor();
  const Tensor out = relu(&tape, z);
  const std::int64_t saved = tape.saved_bytes();
  EXPECT_GT(saved, 0);
  EXPECT_EQ(error_text([&] { tape.backward(out); }), "refused");
  EXPECT_TRUE(tape.nodes().empty());
  EXPECT_FALSE(x.grad());
}

TEST(Tape, DetachingStopsTheGradient) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2}), w = leaf(c, {2});
  Tape tape;
  const Tensor h = relu(&tape, x);
  tape.backward(add(&tape, h.detached(), w));
  EXPECT_FALSE(x.grad());
  EXPECT_EQ(w.grad().to_host<float>(), (Floats{1, 1}));
}

TEST(Tape, NodesBesideTheOutputAreSkipped) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2}), other = leaf(c, {2});
  Tape tape;
  const Tensor y = relu(&tape, x);
  relu(&tape, other);
  tape.backward(y);
  EXPECT_EQ(x.grad().to_host<float>(), (Floats{1, 1}));
  EXPECT_FALSE(other.grad());
}

TEST(Tape, LeavesNeverShareAGradient) {
  const ContextPtr c = cpu_context();
  const Tensor a = leaf(c, {3}), b = leaf(c, {3});
  Tape tape;
  tape.backward(add(&tape, a, b));
  ASSERT_TRUE(a.grad() && b.grad());
  EXPECT_NE(a.grad().view().data, b.grad().view().data);
  tape.backward(relu(&tape, a));
  EXPECT_EQ(a.grad().to_host<float>(), (Floats{2, 2, 2}));
  EXPECT_EQ(b.grad().to_host<float>(), (Floats{1, 1, 1}));
}

TEST(Tape, ASumOfOneTensorWithItselfCountsTwice) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2});
  Tape tape;
  const Tensor h = relu(&tape, x);
  const Tensor four = add(&tape, add(&tape, h, h), add(&tape, h, h));
  tape.backward(four);
  EXPECT_EQ(x.grad().to_host<float>(), (Floats{4, 4}));
}

TEST(Tape, AdditionHandsOnItsGradientWithoutACopy) {
  const ContextPtr c = cpu_context();
  const Tensor a = leaf(c, {1000}), b = leaf(c, {1000});
  Tape tape;
  const Tensor y = add(&tape, relu(&tape, a), relu(&tape, b));
  MemoryTrace trace;
  c->pool().set_trace(&trace);
  tape.backward(y);
  c->pool().set_trace(nullptr);
  // The seed, and one more once the first rectifier finds it shared.
  std::vector<std::string> asking;
  for (const MemoryEvent& e : trace.events())
    if (e.action == MemoryAction::allocate) asking.push_back(e.op);
  EXPECT_EQ(asking, (std::vector<std::string>{"", "relu"}));
}

TEST(Tape, AddingToASharedGradientLeavesTheOthersAlone) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {1, 2, 2, 3}), other = leaf(c, {1, 2, 2, 3});
  Tape tape;
  const Tensor h = relu(&tape, x), beside = relu(&tape, other);
  const Tensor pooled = avg_pool(&tape, h, {.kernel = 1});
  // Both sums hand one gradient on: `h` has it when the pooling adds its own to it.
  tape.backward(add(&tape, pooled, add(&tape, h, beside)));
  EXPECT_EQ(x.grad().to_host<float>(), Floats(12, 2));
  EXPECT_EQ(other.grad().to_host<float>(), Floats(12, 1));
}

TEST(Tape, DeepChainsNeedNoStack) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {1}), zero = Tensor::full(c, {1}, 0);
  Tape tape;
  Tensor h = x;
  for (int i = 0; i < 100000; ++i) h = add(&tape, h, zero);
  tape.backward(h);
  EXPECT_EQ(x.grad().to_host<float>(), (Floats{1}));
  for (int i = 0; i < 100000; ++i) h = add(&tape, h, x);
  tape.clear();
}

TEST(Tape, NamesPhaseOperatorAndUnitInTheTrace) {
  const ContextPtr c = cpu_context();
  const Tensor x = leaf(c, {2, 3}), w = leaf(c, {4, 3});
  Tape tape;
  Tensor y;
  {
    const UnitScope unit("head");
    y = linear(&tape, x, w, {});
  }
  MemoryTrace trace;
  c->pool().set_trace(&trace);
  tape.backward(y);
  c->pool().set_trace(nullptr);
  int gradients = 0;
  for (const MemoryEvent& e : trace.events()) {
    if (e.action != MemoryAction::allocate || e.category != Category::gradient) continue;
    ++gradients;
    EXPECT_EQ(e.phase, "backward");
    EXPECT_EQ(e.op, "linear");
    EXPECT_EQ(e.unit, "head");
  }
  EXPECT_EQ(gradients, 2);
  EXPECT_EQ(memory_tags().phase, "");
}

}  // namespace
}  // namespace nf::test
