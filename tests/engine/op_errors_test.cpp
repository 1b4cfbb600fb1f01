// What operators say of arguments that don't fit: the operator, the rule and the values.
#include <cmath>

#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

class OpErrors : public ::testing::Test {
 protected:
  // Shapes are checked before anything is computed, so that nothing need be.
  ContextPtr context_ = make_meta_context({});

  Tensor make(const Shape& shape, DType dtype = DType::f32) const {
    return Tensor::empty(context_, shape, dtype);
  }
  std::string conv(const Shape& x, const Shape& w, const Conv2dOptions& options = {}) const {
    return error_text([&] { conv2d(nullptr, make(x), make(w), {}, options); });
  }
  std::string pool(const Shape& x, const Pool2dOptions& options) const {
    return error_text([&] { max_pool(nullptr, make(x), options); });
  }
  BatchNormState state(std::int64_t channels) const {
    return {make({channels}), make({channels}), make({channels}), make({channels})};
  }
  std::string norm(const Tensor& x, const Tensor& residual, BatchNormState state,
                   const BatchNormOptions& options = {}) const {
    return error_text([&] { batch_norm(nullptr, x, residual, state, options); });
  }
};

TEST_F(OpErrors, Conv2dShapes) {
  EXPECT_EQ(
      conv({8, 32, 32, 3}, {4, 3, 3, 16}),
      "conv2d: input has 3 channels, weight expects 16 (input [8,32,32,3], weight [4,3,3,16])");
  EXPECT_EQ(
      conv({8, 32, 32, 6}, {4, 3, 3, 16}, {.groups = 2}),
      "conv2d: input has 6 channels, weight expects 32 in 2 groups (input [8,32,32,6], weight "
      "[4,3,3,16])");
  EXPECT_EQ(conv({8, 32, 3}, {4, 3, 3, 3}),
            "conv2d: input must be (N, H, W, C) with no empty dimension, got [8,32,3]");
  EXPECT_EQ(conv({0, 32, 32, 3}, {4, 3, 3, 3}),
            "conv2d: input must be (N, H, W, C) with no empty dimension, got [0,32,32,3]");
  EXPECT_EQ(conv({8, 32, 32, 3}, {4, 3, 3}),
            "conv2d: weight must be (O, KH, KW, C / groups) with no empty dimension (input "
            "[8,32,32,3], weight [4,3,3])");
  EXPECT_EQ(conv({8, 32, 32, 3}, {4, 0, 3, 3}),
            "conv2d: weight must be (O, KH, KW, C / groups) with no empty dimension (input "
            "[8,32,32,3], weight [4,0,3,3])");
  EXPECT_EQ(conv({1, 4, 9, 3}, {4, 5, 3, 3}),
            "conv2d: a 5x3 kernel does not fit 4x9 pixels padded by 0 (input [1,4,9,3], weight "
            "[4,5,3,3])");
}

TEST_F(OpErrors, Conv2dOptions) {
  EXPECT_EQ(conv({1, 8, 8, 4}, {6, 3, 3, 4}, {.stride = 0}),
            "conv2d: stride must be 1 to 1073741824, got 0");
  EXPECT_EQ(conv({1, 8, 8, 4}, {6, 3, 3, 4}, {.padding = -1}),
            "conv2d: padding must be 0 to 1073741824, got -1");
  EXPECT_EQ(conv({1, 8, 8, 4}, {6, 3, 3, 4}, {.padding = std::int64_t{1} << 62}),
            "conv2d: padding must be 0 to 1073741824, got 4611686018427387904");
  for (const std::int64_t groups : {3, 4, 0, -2})
    EXPECT_EQ(conv({1, 8, 8, 4}, {6, 3, 3, 1}, {.groups = groups}),
              fmt::format("conv2d: {} groups do not divide 4 input and 6 output channels (input "
                          "[1,8,8,4], weight [6,3,3,1])",
                          groups));
}

TEST_F(OpErrors, Conv2dOperands) {
  const Tensor x = make({1, 8, 8, 4}), w = make({6, 3, 3, 4});
  EXPECT_EQ(error_text([&] { conv2d(nullptr, {}, w, {}); }),
            "conv2d: the input is an empty tensor");
  EXPECT_EQ(error_text([&] { conv2d(nullptr, x, {}, {}); }),
            "conv2d: the weight is an empty tensor");
  EXPECT_EQ(error_text([&] { conv2d(nullptr, x, w, make({5})); }),
            "conv2d: bias must be [6], got [5]");
  EXPECT_EQ(error_text([&] { conv2d(nullptr, x, w, make({6}, DType::f64)); }),
            "conv2d: input is f32, bias is f64");
  EXPECT_EQ(error_text([&] {
              conv2d(nullptr, make({1, 8, 8, 4}, DType::f16), w, {});
            }),
            "conv2d: the input must be f32 or f64, got f16 [1,8,8,4]");
  EXPECT_EQ(error_text([&] {
              conv2d(nullptr, x, make({6, 3, 3, 4}, DType::f64), {});
            }),
            "conv2d: input is f32, weight is f64");
  const Tensor elsewhere = Tensor::empty(kCpuPaths[0].context(), {6, 3, 3, 4});
  EXPECT_EQ(error_text([&] { conv2d(nullptr, x, elsewhere, {}); }),
            "conv2d: input and weight live in different contexts (input on meta, weight on cpu)");
}

TEST_F(OpErrors, Conv2dLargerThan64Bits) {
  const std::int64_t huge = std::int64_t{1} << 31;
  EXPECT_THROW(conv2d_problem({huge, huge, huge, 1}, {1, 1, 1, 1}, DType::f32, {}), Error);
  EXPECT_EQ(conv2d_problem({1, 9, 7, 3}, {4, 3, 3, 3}, DType::f32, {.stride = 2}).out_h(), 4);
}

TEST_F(OpErrors, Linear) {
  const auto text = [&](const Shape& x, const Shape& w) {
    return error_text([&] { linear(nullptr, make(x), make(w), {}); });
  };
  EXPECT_EQ(text({8, 3}, {10, 4}),
            "linear: input has 3 features, weight expects 4 (input [8,3], weight [10,4])");
  EXPECT_EQ(text({8, 1, 1, 3}, {10, 3}),
            "linear: input must be (N, I) with no empty dimension, got [8,1,1,3]");
  EXPECT_EQ(text({8, 3}, {10}), "linear: weight must be (O, I) with no empty dimension, got [10]");
  EXPECT_EQ(error_text([&] {
              linear(nullptr, make({8, 3}), make({10, 3}), make({10, 1}));
            }),
            "linear: bias must be [10], got [10,1]");
}

TEST_F(OpErrors, BatchNorm) {
  const Tensor x = make({2, 4, 4, 8});
  EXPECT_EQ(norm(x, {}, state(7)), "batch_norm: gamma must be [8], got [7]");
  BatchNormState odd = state(8);
  odd.running_var = make({4, 2});
  EXPECT_EQ(norm(x, {}, odd), "batch_norm: running_var must be [8], got [4,2]");
  odd.running_mean = {};
  EXPECT_EQ(norm(x, {}, odd), "batch_norm: the running_mean is an empty tensor");
  EXPECT_EQ(norm(x, make({2, 4, 4, 4}), state(8)),
            "batch_norm: residual must have the input's shape (input [2,4,4,8], residual "
            "[2,4,4,4])");
  EXPECT_EQ(norm(make({8}), {}, state(8)),
            "batch_norm: input must be (N, …, C) with no empty dimension, got [8]");
  EXPECT_EQ(norm(x, {}, state(8), {.eps = 0}), "batch_norm: eps must be positive, got 0");
  EXPECT_EQ(norm(x, {}, state(8), {.momentum = 1.5}),
            "batch_norm: momentum must be 0 to 1, got 1.5");
  Tape tape;
  BatchNormState trained = state(8);
  trained.gamma.set_requires_grad(true);
  EXPECT_EQ(error_text([&] { batch_norm(&tape, x, {}, trained, {.training = false}); }),
            "batch_norm: evaluation has no gradient, but the tape wants one (input [2,4,4,8])");
  EXPECT_EQ(error_text([&] { batch_norm(nullptr, x, {}, trained, {.training = false}); }), "");
}

TEST_F(OpErrors, Pooling) {
  EXPECT_EQ(pool({1, 4, 9, 3}, {.kernel = 5}),
            "max_pool: a 5x5 window does not fit 4x9 pixels padded by 0 (input [1,4,9,3])");
  EXPECT_EQ(pool({1, 8, 8, 3}, {.kernel = 3, .padding = 2}),
            "max_pool: padding must be 0 to half of the kernel 3, got 2 (input [1,8,8,3])");
  EXPECT_EQ(pool({1, 8, 8, 3}, {.kernel = 0}),
            "max_pool: kernel must be 1 to 1073741824, got 0 (input [1,8,8,3])");
  EXPECT_EQ(pool({1, 8, 8, 3}, {.stride = -1}),
            "max_pool: stride must be 0 (the kernel's size) to 1073741824, got -1 (input "
            "[1,8,8,3])");
  EXPECT_EQ(error_text([&] {
              avg_pool(nullptr, make({8, 8, 3}));
            }),
            "avg_pool: input must be (N, H, W, C) with no empty dimension, got [8,8,3]");
  EXPECT_EQ(error_text([&] {
              adaptive_avg_pool(nullptr, make({1, 8, 8, 3}), 0, 2);
            }),
            "adaptive_avg_pool: the output must have at least 1x1 pixels, got 0x2 (input "
            "[1,8,8,3])");
}

TEST_F(OpErrors, ElementwiseAndShapes) {
  EXPECT_EQ(error_text([&] {
              add(nullptr, make({2, 3}), make({3, 2}));
            }),
            "add: shapes differ ([2,3] and [3,2])");
  EXPECT_EQ(error_text([&] { add(nullptr, make({2}), make({2}, DType::f64)); }),
            "add: input is f32, second input is f64");
  EXPECT_EQ(error_text([&] { relu(nullptr, make({2}, DType::i32)); }),
            "relu: the input must be f32 or f64, got i32 [2]");
  EXPECT_EQ(error_text([&] { relu6(nullptr, {}); }), "relu6: the input is an empty tensor");
  EXPECT_EQ(error_text([&] {
              reshape(nullptr, make({2, 3}), {5});
            }),
            "reshape: [2,3] has 6 elements, [5] has 5");
  EXPECT_EQ(error_text([&] { flatten(nullptr, make({})); }),
            "flatten: input must have a batch dimension, got []");
  for (const double p : {-0.1, 1.0, std::nan("")})
    EXPECT_EQ(error_text([&] { dropout(nullptr, make({2}), p, 1); }),
              fmt::format("dropout: p must be in [0, 1), got {}", p));
  EXPECT_EQ(error_text([&] { scale(nullptr, make({2}), std::nan("")); }),
            "scale: alpha must be finite, got nan");
  const Tensor x = make({2, 3}).set_requires_grad(true);
  Tape tape;
  Tensor y = scale(&tape, x, 2);
  EXPECT_EQ(error_text([&] { scale_in_place(y, 2); }),
            "scale_in_place: [2,3] is the result of a recorded operator; use scale");
}

TEST_F(OpErrors, CrossEntropy) {
  const Tensor logits = make({4, 10}), labels = make({4}, DType::i32);
  const auto text = [&](const Tensor& x, const Tensor& t, double smoothing) {
    return error_text([&] { softmax_cross_entropy(nullptr, x, t, smoothing); });
  };
  EXPECT_EQ(text(make({4, 1, 1, 10}), labels, 0),
            "softmax_cross_entropy: input must be (N, C) with no empty dimension, got [4,1,1,10]");
  EXPECT_EQ(text(logits, make({4}), 0), "softmax_cross_entropy: labels must be i32, got f32");
  EXPECT_EQ(text(logits, make({5}, DType::i32), 0),
            "softmax_cross_entropy: labels must be [4], got [5] (input [4,10])");
  EXPECT_EQ(text(logits, {}, 0), "softmax_cross_entropy: the labels is an empty tensor");
  EXPECT_EQ(text(logits, labels, 1),
            "softmax_cross_entropy: label smoothing must be in [0, 1), got 1");
}

// Labels are values, so they are looked at where something is computed.
TEST_F(OpErrors, CrossEntropyLabelsOutOfRange) {
  for (const DevicePath& path : device_paths()) {
    if (path.device == DeviceKind::cuda) continue;  // gives a NaN loss
    const ContextPtr context = path.context();
    const Tensor logits = Tensor::full(context, {4, 10}, 0, path.dtype);
    const auto text = [&](const std::vector<std::int32_t>& labels) {
      const Tensor target = Tensor::from_host<std::int32_t>(context, {4}, labels);
      const std::string plain = error_text([&] { softmax_cross_entropy(nullptr, logits, target); });
      Tape tape;  // the form that trains
      Tensor leaf = Tensor::full(context, {4, 10}, 0, path.dtype);
      leaf.set_requires_grad(true);
      EXPECT_EQ(error_text([&] { softmax_cross_entropy_with_gradient(&tape, leaf, target); }),
                plain);
      return plain;
    };
    EXPECT_EQ(text({0, 9, 10, -1}), "softmax_cross_entropy: label 2 must be in [0, 10), got 10");
    EXPECT_EQ(text({0, 9, 8, -1}), "softmax_cross_entropy: label 3 must be in [0, 10), got -1");
    EXPECT_EQ(text({0, 9, 8, 1}), "");
  }
}

// A refused request names the operator, and nothing is left behind.
TEST_F(OpErrors, OutOfBudgetNamesTheOperator) {
  const ContextPtr small = Context::create({.budget = 1 << 20});
  const Tensor x = Tensor::full(small, {1, 100, 100, 3}, 1);
  const std::int64_t live = small->pool().stats().live;
  const std::string text = error_text([&] {
    conv2d(nullptr, x, Tensor::full(small, {64, 3, 3, 3}, 1), {}, {.padding = 1});
  });
  EXPECT_EQ(text.find("out of budget: conv2d asked for 2560000 bytes of activation; "), 0U) << text;
  EXPECT_EQ(small->pool().stats().live, live);
}

}  // namespace
}  // namespace nf::test
