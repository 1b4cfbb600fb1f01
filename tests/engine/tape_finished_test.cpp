// Leaves that a backward pass is done with, told of while it goes on.
#include <gmock/gmock.h>

#include "engine/autograd/tape.h"
#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

using Floats = std::vector<float>;
using testing::ElementsAre;

Tensor trained(const ContextPtr& context, const Shape& shape, double value = 1) {
  Tensor tensor = Tensor::full(context, shape, value, DType::f32, Category::parameter);
  return tensor.set_requires_grad(true);
}

/// Whichever of `all` are told of, by their index, a list for each call.
class Told {
 public:
  explicit Told(std::vector<Tensor> all) : all_(std::move(all)) {}

  FinishedLeaves listener() {
    return [this](std::span<const Tensor> leaves) {
      calls.emplace_back();
      for (const Tensor& finished : leaves)
        for (std::size_t i = 0; i < all_.size(); ++i)
          if (all_[i].id() == finished.id()) calls.back().push_back(static_cast<int>(i));
    };
  }

  std::vector<std::vector<int>> calls;

 private:
  std::vector<Tensor> all_;
};

TEST(FinishedLeaves, ComeNodeByNodeFromTheEnd) {
  const ContextPtr c = cpu_context();
  const Tensor x = Tensor::full(c, {2, 3}, 1), w1 = trained(c, {4, 3}), b1 = trained(c, {4}),
               w2 = trained(c, {5, 4});
  Tape tape;
  Told told({w1, b1, w2});
  tape.backward(linear(&tape, relu(&tape, linear(&tape, x, w1, b1)), w2, {}), {}, told.listener());
  EXPECT_THAT(told.calls, ElementsAre(ElementsAre(2), ElementsAre(0, 1)));
}

// The last use in the pass is the first that was recorded.
TEST(FinishedLeaves, ALeafUsedTwiceHasBothContributions) {
  const ContextPtr c = cpu_context();
  const Tensor x = trained(c, {2}), y = trained(c, {2});
  Tape tape;
  const Tensor sum = add(&tape, add(&tape, x, y), x);
  std::vector<Floats> gradients;
  tape.backward(sum, {}, [&](std::span<const Tensor> leaves) {
    for (const Tensor& finished : leaves) gradients.push_back(finished.grad().to_host<float>());
  });
  EXPECT_THAT(gradients, ElementsAre(Floats{2, 2}, Floats{1, 1}));
}

TEST(FinishedLeaves, ComeOnceWhereOneNodeUsesThemTwice) {
  const ContextPtr c = cpu_context();
  const Tensor x = trained(c, {2});
  Tape tape;
  Told told({x});
  tape.backward(add(&tape, x, x), {}, told.listener());
  EXPECT_THAT(told.calls, ElementsAre(ElementsAre(0)));
  EXPECT_EQ(x.grad().to_host<float>(), (Floats{2, 2}));
}

TEST(FinishedLeaves, DoNotWaitForWhatTheOutputDoesNotNeed) {
  const ContextPtr c = cpu_context();
  const Tensor used = trained(c, {2}), unused = trained(c, {2});
  Tape tape;
  add(&tape, used, unused);  // the earliest to use both, and of no use to the output
  const Tensor y = relu(&tape, used);
  relu(&tape, y);
  Told told({used, unused});
  tape.backward(y, {}, told.listener());
  EXPECT_THAT(told.calls, ElementsAre(ElementsAre(0)));
  EXPECT_FALSE(unused.grad());
}

// As an optimizer does: the filters are read by the gradient of the convolution's input.
TEST(FinishedLeaves, MayBeChangedAndTheirGradientsFreed) {
  const auto run = [](bool changes, Floats& input_gradient, std::int64_t& live) {
    const ContextPtr c = cpu_context();
    const Tensor x = trained(c, {1, 4, 4, 2}), v = trained(c, {2, 3, 3, 2}, 0.5),
                 w = trained(c, {2, 3, 3, 2}, 0.25);
    Tape tape;
    // The same filters in both: the first node of the pass must not let them go.
    Tensor h = conv2d(&tape, x, w, {}, {.padding = 1});
    h = conv2d(&tape, h, v, {}, {.padding = 1});
    const Tensor y = conv2d(&tape, h, w, {}, {.padding = 1});
    h = Tensor();
    Floats of_filters;
    tape.backward(y, {}, [&](std::span<const Tensor> leaves) {
      for (Tensor finished : leaves) {
        if (finished.id() == x.id()) continue;
        if (finished.id() == w.id()) of_filters = finished.grad().to_host<float>();
        if (!changes) continue;
        finished.clear_grad();
        finished.backend().fill(finished.mutable_view(), 1000);
      }
    });
    input_gradient = x.grad().to_host<float>();
    live = c->pool().stats().live;
    return of_filters;
  };
  Floats expected, actual;
  std::int64_t kept = 0, freed = 0;
  EXPECT_EQ(run(true, actual, freed), run(false, expected, kept));
  EXPECT_EQ(actual, expected);
  EXPECT_EQ(kept - freed, 2 * cpu_context()->pool().granted(2 * 3 * 3 * 2 * 4));
}

TEST(FinishedLeaves, WhatTheListenerThrowsEmptiesTheRecord) {
  const ContextPtr c = cpu_context();
  const Tensor x = trained(c, {2}), y = trained(c, {2});
  Tape tape;
  const Tensor sum = add(&tape, relu(&tape, x), y);
  EXPECT_EQ(
      error_text([&] { tape.backward(sum, {}, [](std::span<const Tensor>) { fail("refused"); }); }),
      "refused");
  EXPECT_TRUE(tape.nodes().empty());
  EXPECT_FALSE(x.grad());
  EXPECT_TRUE(y.grad());
}

}  // namespace
}  // namespace nf::test
