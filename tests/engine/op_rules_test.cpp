// What operators promise beyond their formulas: special values, memory kept, statistics.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

using Floats = std::vector<float>;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class OpRules : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }

  ContextPtr context_ = GetParam().missing().empty() ? GetParam().context() : nullptr;
  DType dtype_ = GetParam().dtype;

  Tensor tensor(const Shape& shape, const Values& values) const {
    return to_tensor(context_, shape, values, dtype_);
  }
  Tensor random(const Shape& shape, const std::string& name, double low = -1,
                double high = 1) const {
    return tensor(shape, random_values(shape.numel(), name, low, high));
  }
  Tensor filled(const Shape& shape, double value) const {
    return Tensor::full(context_, shape, value, dtype_);
  }
};

TEST_P(OpRules, RectifiersHaveNoSlopeAtTheirKinks) {
  Tensor x = tensor({5}, {-1, 0, 3, 6, 7});
  x.set_requires_grad(true);
  Tape tape;
  tape.backward(relu(&tape, x));
  EXPECT_EQ(to_values(x.grad()), (Values{0, 0, 1, 1, 1}));
  x.clear_grad();
  const Tensor y = relu6(&tape, x);
  EXPECT_EQ(to_values(y), (Values{0, 0, 3, 6, 6}));
  tape.backward(y);
  EXPECT_EQ(to_values(x.grad()), (Values{0, 0, 1, 0, 0}));
}

TEST_P(OpRules, MaxPoolLetsNanWinAndTakesTheFirstOfEquals) {
  const double nan = static_cast<double>(kNan), infinity = static_cast<double>(kInfinity);
  Tensor x = tensor({1, 2, 8, 1}, {1, 2, nan, 5, -infinity, -infinity, 4, 4,  //
                                   2, 2, 3, 9, -infinity, -infinity, 4, nan});
  x.set_requires_grad(true);
  Tape tape;
  const Tensor y = max_pool(&tape, x);
  const Values values = to_values(y);
  EXPECT_EQ(values[0], 2);
  EXPECT_TRUE(std::isnan(values[1]));
  EXPECT_EQ(values[2], -infinity);
  EXPECT_TRUE(std::isnan(values[3]));
  tape.backward(y);
  EXPECT_EQ(to_values(x.grad()), (Values{0, 1, 1, 0, 1, 0, 0, 0,  //
                                         0, 0, 0, 0, 0, 0, 0, 1}));
}

TEST_P(OpRules, MaxPoolKeepsAByteForEachOutputOfASmallWindow) {
  const Tensor x = random({1, 20, 20, 3}, "x").set_requires_grad(true);
  Tape tape;
  const Tensor small = max_pool(&tape, x, {.kernel = 16, .stride = 1});
  EXPECT_EQ(tape.saved_bytes(), small.numel());
  tape.clear();
  const Tensor large = max_pool(&tape, x, {.kernel = 17, .stride = 1});
  EXPECT_EQ(tape.saved_bytes(), 4 * large.numel());
}

TEST_P(OpRules, AveragesAndSumsKeepNothing) {
  const Tensor x = random({1, 4, 4, 3}, "x").set_requires_grad(true);
  Tape tape;
  avg_pool(&tape, x);
  adaptive_avg_pool(&tape, x, 1, 1);
  add(&tape, x, x);
  dropout(&tape, x, 0.5, 1);
  flatten(&tape, x);
  scale(&tape, x, 2);
  EXPECT_EQ(tape.nodes().size(), 6U);
  EXPECT_EQ(tape.saved_bytes(), 0);
}

TEST_P(OpRules, WhatChangesNothingReturnsItsInput) {
  const Tensor x = random({2, 3, 4, 5}, "x").set_requires_grad(true);
  Tape tape;
  EXPECT_EQ(adaptive_avg_pool(&tape, x, 3, 4).id(), x.id());
  EXPECT_EQ(dropout(&tape, x, 0, 1).id(), x.id());
  EXPECT_EQ(scale(&tape, x, 1).id(), x.id());
  EXPECT_TRUE(tape.nodes().empty());
}

TEST_P(OpRules, DropoutKeepsItsShareAndFollowsItsKey) {
  const std::int64_t n = 100000;
  const Tensor x = filled({n}, 1);
  for (const double p : {0.1, 0.5, 0.9}) {
    const Values y = to_values(dropout(nullptr, x, p, 42));
    const auto kept =
        static_cast<double>(std::count_if(y.begin(), y.end(), [](double v) { return v != 0; }));
    // Five standard deviations of a binomial.
    EXPECT_NEAR(kept, static_cast<double>(n) * (1 - p),
                5 * std::sqrt(static_cast<double>(n) * p * (1 - p)));
    EXPECT_EQ(to_values(dropout(nullptr, x, p, 42)), y);
    EXPECT_NE(to_values(dropout(nullptr, x, p, 43)), y);
  }
}

TEST_P(OpRules, ScalingInPlaceTakesNoMemoryAndIsSeenByATape) {
  const Values values = random_values(33, "x");
  Tensor x = tensor({33}, values), w = filled({33}, 2).set_requires_grad(true);
  const Values product = to_values(scale(nullptr, x, -0.3));
  const std::int64_t live = context_->pool().stats().live;
  scale_in_place(x, -0.3);
  EXPECT_EQ(context_->pool().stats().live, live);
  EXPECT_EQ(to_values(x), product);
  Tape tape;
  Tensor y = relu(&tape, w);
  scale_in_place(w, 0.5);  // a leaf, which relu does not keep
  EXPECT_EQ(to_values(w), Values(33, 1));
  EXPECT_NE(error_text([&] { scale_in_place(y, 2); }), "");
  Tensor kept = y.detached();
  scale_in_place(kept, 2);
  EXPECT_NE(error_text([&] { tape.backward(y); }), "") << "relu keeps what was changed";
}

TEST_P(OpRules, ReshapeCopiesNothing) {
  const Tensor x = random({2, 3, 4}, "x");
  const std::int64_t live = context_->pool().stats().live;
  const Tensor y = flatten(nullptr, x);
  EXPECT_EQ(y.shape(), Shape({2, 12}));
  EXPECT_EQ(y.view().data, x.view().data);
  EXPECT_EQ(context_->pool().stats().live, live);
}

TEST_P(OpRules, LargeTensorsComeBackAsTheyWent) {
  std::vector<std::int32_t> values(5'000'001);
  std::iota(values.begin(), values.end(), -7);
  const Shape shape{static_cast<std::int64_t>(values.size())};
  const Tensor x = Tensor::from_host<std::int32_t>(context_, shape, values);
  EXPECT_TRUE(x.to_host<std::int32_t>() == values);
  EXPECT_TRUE(x.clone(Category::input).to_host<std::int32_t>() == values);
}

// Rows of a tensor start anywhere: what is read in large pieces must bear that.
TEST_P(OpRules, RowsOfATensorAreAsGoodAsTensors) {
  using Operator = std::function<Tensor(Tape*, const Tensor& x, const Tensor& w)>;
  const auto state = [&](std::int64_t channels) {
    return BatchNormState{filled({channels}, 2), filled({channels}, 1), filled({channels}, 0),
                          filled({channels}, 1)};
  };
  struct Case {
    const char* name;
    Shape x, w;  // one row more than is taken
    Operator run;
  };
  const std::vector<Case> cases{
      {"linear", {6, 7}, {6, 7}, [](Tape* t, auto& x, auto& w) { return linear(t, x, w, {}); }},
      {"conv2d",
       {4, 5, 5, 3},
       {6, 3, 3, 3},
       [](Tape* t, auto& x, auto& w) { return conv2d(t, x, w, {}, {.padding = 1}); }},
      {"depthwise",
       {4, 5, 5, 3},
       {4, 3, 3, 1},
       [](Tape* t, auto& x, auto& w) { return conv2d(t, x, w, {}, {.padding = 1, .groups = 3}); }},
      {"add", {4, 33}, {4, 33}, [](Tape* t, auto& x, auto& w) { return add(t, x, w); }},
      {"relu", {4, 33}, {2, 1}, [](Tape* t, auto& x, auto&) { return relu(t, x); }},
      {"max_pool", {4, 4, 4, 5}, {2, 1}, [](Tape* t, auto& x, auto&) { return max_pool(t, x); }},
      {"batch_norm", {4, 3, 3, 5}, {2, 1}, [&](Tape* t, auto& x, auto&) {
         BatchNormState five = state(5);
         return batch_norm(t, x, {}, five);
       }}};
  for (const Case& c : cases) {
    const Tensor x = random(c.x, c.name), w = random(c.w, std::string(c.name) + " w");
    std::vector<Values> outputs, gradients;
    for (const bool copied : {false, true}) {
      Tensor rows = x.rows(1, c.x[0]), weight = w.rows(1, c.w[0]);
      if (copied) rows = rows.clone(Category::input), weight = weight.clone(Category::parameter);
      weight.set_requires_grad(true);
      Tape tape;
      const Tensor y = c.run(&tape, rows, weight);
      outputs.push_back(to_values(y));
      if (!y.requires_grad()) continue;
      tape.backward(y, random(y.shape(), "dy"));
      gradients.push_back(to_values(weight.grad()));
    }
    // Sums of fewer than 256 products of numbers below 1, perhaps in another order.
    expect_close(outputs[0], outputs[1], 256 * GetParam().eps(), c.name);
    if (!gradients.empty())
      expect_close(gradients[0], gradients[1], 256 * GetParam().eps(), c.name);
  }
}

TEST_P(OpRules, BatchNormUpdatesItsRunningStatistics) {
  for (const BatchNormCase& p : batch_norm_cases()) {
    const Shape channels{p.x[-1]};
    const Values x = random_values(p.x.numel(), p.name + " x", p.offset - 2, p.offset + 2);
    const Values mean = random_values(p.x[-1], p.name + " mean");
    const Values var = random_values(p.x[-1], p.name + " var", 0.5, 2);
    const Values gamma(mean.size(), 1), beta(mean.size(), 0);
    BatchNormState state{tensor(channels, gamma), tensor(channels, beta), tensor(channels, mean),
                         tensor(channels, var)};
    batch_norm(nullptr, tensor(p.x, x), {}, state, {.momentum = 0.3});
    const auto r = reference::batch_norm_train(p, x, {}, gamma, beta, mean, var, 0.3);
    const std::int64_t rows = p.x.numel() / p.x[-1];
    const double size = p.offset + 2;
    expect_close(to_values(state.running_mean), r.running_mean,
                 tolerance({rows, size}, GetParam().eps()), p.name + ", running mean");
    // Squares of differences of numbers of the input's size, each off by its rounding.
    expect_close(to_values(state.running_var), r.running_var,
                 tolerance({rows, 4 * (1 + size)}, GetParam().eps()),
                 p.name + ", running variance");
  }
}

TEST_P(OpRules, BatchNormOfEqualValuesIsItsBeta) {
  BatchNormState state{filled({2}, 3), tensor({2}, {0.5, -0.25}), filled({2}, 0), filled({2}, 1)};
  const Tensor y = batch_norm(nullptr, filled({4, 2, 2, 2}, 0.75), {}, state);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(to_values(y)[i], i % 2 == 0 ? 0.5 : -0.25);
}

TEST_P(OpRules, BatchNormOfASingleRowLeavesTheRunningStatisticsAlone) {
  BatchNormState state{filled({3}, 2), tensor({3}, {0.5, -0.25, 4}), tensor({3}, {1, 2, 3}),
                       tensor({3}, {4, 5, 6})};
  const Tensor y = batch_norm(nullptr, random({1, 1, 1, 3}, "x"), {}, state, {.momentum = 1});
  EXPECT_EQ(to_values(y), (Values{0.5, -0.25, 4}));
  EXPECT_EQ(to_values(state.running_mean), (Values{1, 2, 3}));
  EXPECT_EQ(to_values(state.running_var), (Values{4, 5, 6}));
}

TEST_P(OpRules, BatchNormKeepsItsOutputOnlyForAMaskedResidual) {
  const Shape shape{4, 8, 8, 16};
  const Tensor x = random(shape, "x").set_requires_grad(true), residual = random(shape, "r");
  BatchNormState state{filled({16}, 1), filled({16}, 0), filled({16}, 0), filled({16}, 1)};
  const std::int64_t small = 4 * state.gamma.bytes();  // gamma, beta, mean, 1/std
  Tape tape;
  batch_norm(&tape, x, {}, state, {.activation = Activation::relu});
  EXPECT_EQ(tape.saved_bytes(), x.bytes() + small);
  tape.clear();
  batch_norm(&tape, x, residual, state);
  EXPECT_EQ(tape.saved_bytes(), x.bytes() + small);
  tape.clear();
  batch_norm(&tape, x, residual, state, {.activation = Activation::relu});
  EXPECT_EQ(tape.saved_bytes(), 2 * x.bytes() + small);
}

TEST_P(OpRules, BatchNormAddsToOneParameterAndReplacesTheOther) {
  const Shape shape{3, 2, 2, 5};
  const Tensor x = random(shape, "x"), gamma = random({5}, "g").set_requires_grad(true);
  const Tensor beta = random({5}, "b").set_requires_grad(true);
  BatchNormState state{gamma, beta, filled({5}, 0), filled({5}, 1)};
  Tape tape;
  tape.backward(batch_norm(&tape, x, {}, state));
  const Values first_gamma = to_values(gamma.grad()), first_beta = to_values(beta.grad());
  for (const bool keep_gamma : {true, false}) {
    gamma.clear_grad();
    beta.clear_grad();
    (keep_gamma ? gamma : beta).set_grad(filled({5}, 100));
    tape.backward(batch_norm(&tape, x, {}, state));
    Values expected_gamma = first_gamma, expected_beta = first_beta;
    for (double& value : keep_gamma ? expected_gamma : expected_beta) value += 100;
    expect_close(to_values(gamma.grad()), expected_gamma, 100 * GetParam().eps(), "gamma");
    expect_close(to_values(beta.grad()), expected_beta, 100 * GetParam().eps(), "beta");
  }
}

TEST_P(OpRules, BatchNormBackwardWritesOverTheGradientItGot) {
  const Shape shape{4, 8, 8, 16};
  const Tensor x = random(shape, "x");
  BatchNormState state{filled({16}, 1).set_requires_grad(true), filled({16}, 0), filled({16}, 0),
                       filled({16}, 1)};
  Tape tape;
  Tensor y = batch_norm(&tape, x, {}, state);
  Tensor seed = filled(shape, 1);
  context_->pool().reset_peak();
  const std::int64_t before = context_->pool().stats().live;
  tape.backward(y, std::move(seed));
  EXPECT_LT(context_->pool().stats().peak_live, before + x.bytes());
}

TEST_P(OpRules, CrossEntropyCountsTheFirstLargest) {
  const Tensor logits = tensor({4, 3}, {1, 2, 0,  //
                                        5, 5, 1,  //
                                        5, 5, 1,  //
                                        0, 0, 0});
  const std::vector<std::int32_t> labels{1, 0, 1, 2};
  const CrossEntropy result = softmax_cross_entropy(
      nullptr, logits, Tensor::from_host<std::int32_t>(context_, {4}, labels));
  EXPECT_EQ(result.correct.to_host<std::int32_t>(), std::vector<std::int32_t>{2});
}

TEST_P(OpRules, CrossEntropyCountsNoRowWithoutAPrediction) {
  const double nan = static_cast<double>(kNan), infinity = static_cast<double>(kInfinity);
  const Tensor logits = tensor({5, 3}, {nan, 1, 0,                        //
                                        5, nan, 1,                        //
                                        infinity, 0, 0,                   //
                                        -infinity, -infinity, -infinity,  //
                                        -infinity, 2, 1});
  const std::vector<std::int32_t> labels{0, 0, 0, 0, 1};
  const CrossEntropy result = softmax_cross_entropy(
      nullptr, logits, Tensor::from_host<std::int32_t>(context_, {5}, labels));
  EXPECT_EQ(result.correct.to_host<std::int32_t>(), std::vector<std::int32_t>{1});
  EXPECT_TRUE(std::isnan(to_values(result.loss)[0]));
}

TEST_P(OpRules, CrossEntropyMatchesTheReferencesCount) {
  for (const CrossEntropyCase& p : cross_entropy_cases()) {
    const Values x = random_values(p.n * p.c, p.name, -p.spread, p.spread);
    std::vector<std::int32_t> labels;
    for (std::int64_t n = 0; n < p.n; ++n) {
      const auto row = x.begin() + n * p.c;
      // Every other label is the prediction.
      labels.push_back(
          static_cast<std::int32_t>(n % 2 == 0 ? std::max_element(row, row + p.c) - row : n % p.c));
    }
    const CrossEntropy result = softmax_cross_entropy(
        nullptr, tensor({p.n, p.c}, x), Tensor::from_host<std::int32_t>(context_, {p.n}, labels),
        p.smoothing);
    EXPECT_EQ(result.correct.to_host<std::int32_t>()[0],
              reference::softmax_cross_entropy(p, x, labels).correct)
        << p.name;
  }
}

TEST_P(OpRules, CrossEntropyKeepsOnlyItsInputs) {
  const Tensor logits = random({7, 10}, "x").set_requires_grad(true);
  const std::vector<std::int32_t> labels(7, 3);
  const Tensor target = Tensor::from_host<std::int32_t>(context_, {7}, labels);
  Tape tape;
  softmax_cross_entropy(&tape, logits, target);
  EXPECT_EQ(tape.saved_bytes(), logits.bytes() + target.bytes());
}

// From ones both forms compute the same numbers; from another seed one of them multiplies.
TEST_P(OpRules, CrossEntropyComesWithItsGradient) {
  for (const CrossEntropyCase& p : cross_entropy_cases()) {
    const Values x = random_values(p.n * p.c, p.name, -p.spread, p.spread);
    std::vector<std::int32_t> labels;
    for (std::int64_t n = 0; n < p.n; ++n) labels.push_back(static_cast<std::int32_t>(n % p.c));
    const Tensor target = Tensor::from_host<std::int32_t>(context_, {p.n}, labels);
    for (const bool seeded : {false, true}) {
      const auto run = [&](auto op) {
        const Tensor logits = tensor({p.n, p.c}, x).set_requires_grad(true);
        Tape tape;
        const CrossEntropy result = op(&tape, logits, target, p.smoothing);
        tape.backward(result.loss, seeded ? filled({1}, -3) : Tensor());
        return std::tuple(to_values(result.loss), result.correct.template to_host<std::int32_t>(),
                          to_values(logits.grad()));
      };
      const auto [loss, correct, gradient] = run(softmax_cross_entropy);
      const auto [loss_1, correct_1, gradient_1] = run(softmax_cross_entropy_with_gradient);
      EXPECT_EQ(loss_1, loss) << p.name;
      EXPECT_EQ(correct_1, correct) << p.name;
      // 3 / N and then a product, against 1 / N, a product and 3 times that: two roundings each.
      const double allowed = seeded ? 4 * GetParam().eps() * 3 / static_cast<double>(p.n) : 0.0;
      expect_close(gradient_1, gradient, allowed, p.name);
    }
  }
}

// The scale of a gradient is read from the device, unless it is known to be one.
TEST_P(OpRules, CrossEntropyInsideATapeHasItsOwnSeed) {
  const Tensor logits = random({7, 10}, "x").set_requires_grad(true);
  const Tensor target =
      Tensor::from_host<std::int32_t>(context_, {7}, std::vector<std::int32_t>(7, 3));
  Tape tape;
  const Tensor once = softmax_cross_entropy_with_gradient(&tape, logits, target).loss;
  tape.backward(add(&tape, once, once));
  const Values twice = to_values(logits.grad());
  logits.clear_grad();
  tape.backward(softmax_cross_entropy_with_gradient(&tape, logits, target).loss);
  Values expected = to_values(logits.grad());
  for (double& value : expected) value *= 2;
  EXPECT_EQ(twice, expected);
}

TEST_P(OpRules, CrossEntropyKeepsItsGradientInPlaceOfTheLogits) {
  const Tensor logits = random({7, 10}, "x").set_requires_grad(true);
  const Tensor target =
      Tensor::from_host<std::int32_t>(context_, {7}, std::vector<std::int32_t>(7, 3));
  Tape tape;
  const CrossEntropy result = softmax_cross_entropy_with_gradient(&tape, logits, target);
  ASSERT_EQ(tape.nodes().size(), 1U);
  ASSERT_EQ(tape.nodes()[0]->saved().size(), 1U);
  EXPECT_NE(tape.nodes()[0]->saved()[0].tensor().view().data, logits.view().data);
  EXPECT_EQ(tape.saved_bytes(), logits.bytes());
  const void* kept = tape.nodes()[0]->saved()[0].tensor().view().data;
  tape.backward(result.loss);
  EXPECT_EQ(logits.grad().view().data, kept);
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpRules, ::testing::ValuesIn(device_paths()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::test
