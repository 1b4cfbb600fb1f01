// Leaves that a backward pass is done with, told of while it goes on.
#include <gmock/gmock.h>

#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/memory/trace.h"
#include "engine/ops/ops.h"
#include "engine/random.h"
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

  LeafListener listener() {
    return {.finished = [this](std::span<const Tensor> leaves) {
      calls.emplace_back();
      for (const Tensor& finished : leaves)
        for (std::size_t i = 0; i < all_.size(); ++i)
          if (all_[i].id() == finished.id()) calls.back().push_back(static_cast<int>(i));
    }};
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
  tape.backward(sum, {}, {.finished = [&](std::span<const Tensor> leaves) {
                  for (const Tensor& finished : leaves)
                    gradients.push_back(finished.grad().to_host<float>());
                }});
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
    tape.backward(y, {}, {.finished = [&](std::span<const Tensor> leaves) {
                    for (Tensor finished : leaves) {
                      if (finished.id() == x.id()) continue;
                      if (finished.id() == w.id()) of_filters = finished.grad().to_host<float>();
                      if (!changes) continue;
                      finished.clear_grad();
                      finished.backend().fill(finished.mutable_view(), 1000);
                    }
                  }});
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

/// A 1x1 convolution of so many channels that its filters outweigh the maps by far.
class ManyFilters : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::int64_t kChannels = 256;

  Tensor random(const Shape& shape, Category category, const char* name) const {
    RandomStream stream(random_key(1, Purpose::test), hash_name(name));
    std::vector<float> values(static_cast<std::size_t>(shape.numel()));
    for (float& value : values) value = stream.normal();
    return Tensor::from_host<float>(context_, shape, values, category);
  }
  /// dW[o][c] = sum over places of dy[o] x[c], with its bound of rounding.
  void expect_gradient(const Floats& actual, double factor) const {
    const Floats x = x_.to_host<float>(), dy = dy_.to_host<float>();
    const std::int64_t places = x_.numel() / kChannels;
    for (std::int64_t o = 0; o < kChannels; ++o)
      for (std::int64_t c = 0; c < kChannels; ++c) {
        double sum = 0, size = 0;
        for (std::int64_t p = 0; p < places; ++p) {
          const double product =
              static_cast<double>(dy[static_cast<std::size_t>(p * kChannels + o)]) *
              x[static_cast<std::size_t>(p * kChannels + c)];
          sum += product, size += std::abs(product);
        }
        ASSERT_NEAR(actual[static_cast<std::size_t>(o * kChannels + c)], factor * sum,
                    static_cast<double>(places + 1) * 0x1p-24 * factor * size)
            << o << " " << c;
      }
  }

  ContextPtr context_ =
      Context::create({.budget = std::int64_t{64} << 20, .threads = 2, .onednn = GetParam()});
  Tensor x_ = random({3, 2, 2, kChannels}, Category::input, "x").set_requires_grad(true);
  Tensor w_ =
      random({kChannels, 1, 1, kChannels}, Category::parameter, "w").set_requires_grad(true);
  Tensor dy_ = random({3, 2, 2, kChannels}, Category::activation_gradient, "dy");
  Tape tape_;
};

TEST_P(ManyFilters, GetTheirGradientInParts) {
  const Tensor y = conv2d(&tape_, x_, w_, {});
  tape_.backward(y, dy_);
  expect_gradient(w_.grad().to_host<float>(), 1);
  // The next is added to it, listener or not.
  for (const LeafListener& listener :
       {LeafListener{}, LeafListener{.rows = [](const Tensor&, std::int64_t, const Tensor&) {
          FAIL() << "part of a gradient that was there";
        }}})
    tape_.backward(conv2d(&tape_, x_, w_, {}), dy_, listener);
  expect_gradient(w_.grad().to_host<float>(), 3);
}

TEST_P(ManyFilters, HandThemOverInPartsToWhoChangesThemAtOnce) {
  Tensor y = conv2d(&tape_, x_, w_, {});
  tape_.backward(y, dy_);
  const Floats expected = w_.grad().to_host<float>(), input_gradient = x_.grad().to_host<float>();
  w_.clear_grad();
  x_.clear_grad();
  y = conv2d(&tape_, x_, w_, {});
  Floats gathered;
  MemoryTrace trace;
  context_->pool().set_trace(&trace);
  tape_.backward(y, dy_, {.rows = [&](const Tensor& leaf, std::int64_t begin, const Tensor& part) {
                   ASSERT_EQ(leaf.id(), w_.id());
                   ASSERT_EQ(begin * kChannels, std::ssize(gathered));
                   for (const float value : part.to_host<float>()) gathered.push_back(value);
                   w_.backend().fill(w_.mutable_view(), 1e9);
                 }});
  context_->pool().set_trace(nullptr);
  EXPECT_EQ(gathered, expected);
  EXPECT_EQ(x_.grad().to_host<float>(), input_gradient);
  EXPECT_FALSE(w_.grad());
  std::int64_t parts = 0;
  for (const MemoryEvent& event : trace.events()) {
    if (event.action != MemoryAction::allocate || event.category != Category::gradient) continue;
    if (event.asked == x_.bytes()) continue;
    EXPECT_EQ(event.asked, w_.bytes() / 4);
    ++parts;
  }
  EXPECT_EQ(parts, 4);
}

// A node further down in the pass will read them.
TEST_P(ManyFilters, UsedTwiceHaveAWholeGradient) {
  const Tensor y = conv2d(&tape_, conv2d(&tape_, x_, w_, {}), w_, {});
  int finished = 0, parts = 0;
  tape_.backward(y, dy_,
                 {.finished =
                      [&](std::span<const Tensor> leaves) {
                        for (const Tensor& leaf : leaves) finished += leaf.id() == w_.id() ? 1 : 0;
                      },
                  .rows = [&](const Tensor&, std::int64_t, const Tensor&) { ++parts; }});
  EXPECT_TRUE(w_.grad());
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(parts, 0);
}

INSTANTIATE_TEST_SUITE_P(Cpu, ManyFilters, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "OneDnn" : "Eigen");
});

TEST(FinishedLeaves, WhatTheListenerThrowsEmptiesTheRecord) {
  const ContextPtr c = cpu_context();
  const Tensor x = trained(c, {2}), y = trained(c, {2});
  Tape tape;
  const Tensor sum = add(&tape, relu(&tape, x), y);
  EXPECT_EQ(error_text([&] {
              tape.backward(sum, {},
                            {.finished = [](std::span<const Tensor>) { fail("refused"); }});
            }),
            "refused");
  EXPECT_TRUE(tape.nodes().empty());
  EXPECT_FALSE(x.grad());
  EXPECT_TRUE(y.grad());
}

}  // namespace
}  // namespace nf::test
