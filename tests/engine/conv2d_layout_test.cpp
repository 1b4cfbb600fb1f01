// Weights that stay in the device's favourite layout: the same results, to the bit where the plain
// ones take the same path, and no room for a copy of them in any call but the first.
#include <cmath>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/ops/conv2d.h"
#include "tests/support/expect.h"

namespace nf {
namespace {

struct Case {
  std::int64_t size, c, o, kernel, groups;
};

// Channels that fill the library's blocks and some that don't, full, grouped and depthwise.
constexpr Case kCases[] = {{2, 512, 512, 3, 1}, {8, 64, 128, 1, 1}, {8, 128, 64, 3, 2},
                           {9, 3, 64, 3, 1},    {8, 64, 64, 3, 64}, {7, 40, 24, 3, 1},
                           {4, 512, 512, 1, 1}, {16, 64, 64, 3, 1}};

Tensor random_tensor(const ContextPtr& context, const Shape& shape, const char* name) {
  return test::to_tensor(context, shape, test::random_values(shape.numel(), name), DType::f32);
}

// Between two sums of products of numbers below 1: each is off by a tolerance, for terms whose root
// mean square is a third.
double other_order(std::int64_t length) {
  return 2 * test::tolerance({length, std::sqrt(static_cast<double>(length)) / 3}, 0x1p-23);
}

// Whether plain weights, of which it makes no copy, take another path than the library's.
bool of_our_own(const Conv2dProblem& problem) {
  return cpu::direct_conv2d_pays(problem, Pass::forward) ||
         cpu::pointwise_conv2d_pays(problem, Pass::forward);
}

class Conv2dLayout : public ::testing::TestWithParam<bool> {
 protected:
  ContextPtr context_ =
      Context::create({.budget = std::int64_t{256} << 20, .threads = 2, .onednn = GetParam()});
};

TEST_P(Conv2dLayout, LeavesResultsAsTheyAre) {
  for (const Case& p : kCases) {
    const Conv2dOptions options{.padding = p.kernel / 2, .groups = p.groups};
    const Shape shape{p.o, p.kernel, p.kernel, p.c / p.groups};
    const Tensor w = random_tensor(context_, shape, "w");
    const Tensor bias = random_tensor(context_, {p.o}, "bias");
    Tensor values = w.clone(Category::parameter);
    std::int64_t layout = 0;
    // Other batches may want other layouts, of which each is made from the one before.
    for (const std::int64_t n : {1, 1, 32, 3, 1}) {
      const Tensor x = random_tensor(context_, {n, p.size, p.size, p.c}, "x");
      for (const bool adds : {false, true}) {
        SCOPED_TRACE(fmt::format("{} by {}, x {}", shape.str(), p.groups, x.shape().str()));
        const Tensor residual =
            adds ? random_tensor(context_, {n, p.size, p.size, p.o}, "residual") : Tensor();
        const Tensor plain = conv2d_fused(x, w, bias, residual, Activation::relu, options);
        const Tensor kept = conv2d_fused(x, ConstantWeights{values, layout}, bias, residual,
                                         Activation::relu, options);
        const Conv2dProblem problem = conv2d_problem(x.shape(), shape, DType::f32, options);
        if (layout == 0 || !of_our_own(problem))
          EXPECT_EQ(kept.to_host<float>(), plain.to_host<float>());
        else
          test::expect_close(test::to_values(kept), test::to_values(plain),
                             other_order(shape.numel() / p.o), "kept");
      }
    }
  }
}

TEST_P(Conv2dLayout, IsMadeOnce) {
  std::int64_t reordering = 0;
  for (const Case& p : kCases) {
    const Conv2dOptions options{.padding = p.kernel / 2, .groups = p.groups};
    const Shape shape{p.o, p.kernel, p.kernel, p.c / p.groups};
    SCOPED_TRACE(fmt::format("{} by {}", shape.str(), p.groups));
    Tensor values = random_tensor(context_, shape, "w");
    const Tensor bias = random_tensor(context_, {p.o}, "bias");
    const Tensor x = random_tensor(context_, {1, p.size, p.size, p.c}, "x");
    std::int64_t layout = 0;
    Conv2dProblem problem = conv2d_problem(x.shape(), shape, DType::f32, options);
    problem.activation = Activation::relu;
    Backend& backend = context_->backend();
    const auto workspace = [&] {
      return backend.conv2d_workspace(problem, Pass::forward, GradMode::overwrite);
    };
    const auto call = [&] {
      const std::int64_t before = context_->pool().stats().live;
      context_->pool().reset_peak();
      const Tensor y =
          conv2d_fused(x, ConstantWeights{values, layout}, bias, {}, Activation::relu, options);
      return context_->pool().stats().peak_live - before;
    };
    const std::int64_t live = context_->pool().stats().live;
    const std::int64_t with_copy = workspace();
    call();
    EXPECT_EQ(context_->pool().stats().live, live);
    const std::int64_t wanted = backend.conv2d_weight_layout(problem);
    const bool fits = backend.conv2d_weight_bytes(problem, wanted) == values.bytes();
    EXPECT_EQ(layout, fits ? wanted : 0);
    if (layout == 0) continue;
    ++reordering;
    const bool copies = !of_our_own(problem);
    problem.weight_layout = layout;
    EXPECT_LE(workspace(), copies ? with_copy - values.bytes() : values.bytes() / 2);
    // The second call holds no copy, neither to keep nor to work with.
    EXPECT_LE(call(), workspace() + 2 * backend.alignment() +
                          problem.o * problem.out_h() * problem.out_w() * size_of(DType::f32));
    EXPECT_EQ(context_->pool().stats().live, live);
  }
#if defined(__x86_64__) && defined(NF_TEST_ONEDNN)
  // Such processors have vectors, whose blocks the library wants weights in.
  EXPECT_EQ(reordering > 0, GetParam());
#else
  EXPECT_TRUE(GetParam() || reordering == 0);
#endif
}

// Groups of one channel would be padded to a vector's both ways.
TEST_P(Conv2dLayout, DepthwiseFiltersTakeNoMoreThanAFewTimesTheirMemory) {
  const Backend& backend = context_->backend();
  for (const std::int64_t size : {1, 2, 4, 8})
    for (const std::int64_t n : {1, 5}) {
      const Conv2dProblem problem{.n = n,
                                  .h = size,
                                  .w = size,
                                  .c = 512,
                                  .o = 512,
                                  .kh = 3,
                                  .kw = 3,
                                  .padding = 1,
                                  .groups = 512};
      const std::int64_t filters = 512 * 9 * size_of(DType::f32);
      for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight})
        EXPECT_LE(backend.conv2d_workspace(problem, pass, GradMode::overwrite), 16 * filters)
            << "maps of " << size << ", batch " << n << ", pass " << static_cast<int>(pass);
    }
}

TEST_P(Conv2dLayout, IsRefusedWhereItIsUnknown) {
  const Tensor x = random_tensor(context_, {1, 4, 4, 16}, "x");
  const Tensor bias = random_tensor(context_, {16}, "bias");
  Tensor values = random_tensor(context_, {16, 3, 3, 16}, "w");
  std::int64_t layout = 1000;
  EXPECT_THROW(
      conv2d_fused(x, ConstantWeights{values, layout}, bias, {}, Activation::relu, {.padding = 1}),
      Error);
  EXPECT_EQ(layout, 1000);
}

INSTANTIATE_TEST_SUITE_P(Libraries, Conv2dLayout, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "onednn" : "eigen"; });

}  // namespace
}  // namespace nf
