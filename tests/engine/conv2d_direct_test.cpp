// The CPU's direct convolution at every size, those included for which the backend takes another.
#include <algorithm>

#include "engine/backends/cpu/conv2d_paths.h"
#include "tests/support/expect.h"
#include "tests/support/op_cases.h"

namespace nf::test {
namespace {

constexpr double kEps = 0x1p-23;

std::vector<float> floats(const Values& values) { return {values.begin(), values.end()}; }
Values doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

/// One case, what the reference makes of it, and the path's three passes.
struct Comparison {
  Conv2dProblem problem;
  Instance instance;
  std::vector<float> x, w, bias, dy;

  Comparison(const Conv2dCase& p, Instance t)
      : problem{DType::f32, p.n, p.h, p.w, p.c, p.o, p.kh, p.kw, p.stride, p.padding, p.groups},
        instance(std::move(t)),
        x(floats(instance.inputs[0].values)),
        w(floats(instance.inputs[1].values)),
        bias(p.bias ? floats(instance.inputs[2].values) : std::vector<float>()),
        dy(floats(instance.dy)) {}

  /// y, dx and dw; gradients are added to what `held` says, overwritten otherwise.
  std::vector<std::vector<float>> compute(int threads, GradMode mode, float held) const {
    const cpu::DirectConv2d direct{problem, threads};
    std::vector<float> y(dy.size(), held), dx(x.size(), held), dw(w.size(), held);
    direct.forward(x.data(), w.data(), bias.empty() ? nullptr : bias.data(), y.data());
    direct.backward_input(dy.data(), w.data(), dx.data(), mode);
    direct.backward_weight(x.data(), dy.data(), dw.data(), mode);
    return {y, dx, dw};
  }
};

std::vector<Comparison> comparisons() {
  std::vector<Comparison> result;
  std::vector<Instance> all = instances("conv2d");
  for (std::size_t i = 0; i < all.size(); ++i)
    if (const Conv2dCase& p = conv2d_cases()[i]; p.groups == 1) result.emplace_back(p, all[i]);
  return result;
}

TEST(Conv2dDirect, MatchesTheReference) {
  for (const Comparison& c : comparisons()) {
    const auto found = c.compute(kThreads, GradMode::overwrite, 1e6F);
    const std::vector<Values> gradients = c.instance.backward();
    const std::string& name = c.instance.name;
    expect_close(doubles(found[0]), c.instance.forward(), tolerance(c.instance.output_bound, kEps),
                 name);
    for (std::size_t i = 0; i < 2; ++i)
      expect_close(doubles(found[i + 1]), gradients[i],
                   tolerance(c.instance.gradient_bounds[i], kEps),
                   name + ", gradient of " + c.instance.inputs[i].name);
  }
}

TEST(Conv2dDirect, AddsToGradients) {
  for (const Comparison& c : comparisons()) {
    constexpr float kHeld = 3;
    const auto found = c.compute(kThreads, GradMode::accumulate, kHeld);
    std::vector<Values> gradients = c.instance.backward();
    for (std::size_t i = 0; i < 2; ++i) {
      // What was held may be the first term of the sum or the last.
      Bound bound = c.instance.gradient_bounds[i];
      bound.scale += kHeld, ++bound.length;
      for (double& value : gradients[i]) value += kHeld;
      expect_close(doubles(found[i + 1]), gradients[i], tolerance(bound, kEps),
                   c.instance.name + ", gradient of " + c.instance.inputs[i].name);
    }
  }
}

TEST(Conv2dDirect, HasTheSameBitsForAnyNumberOfThreads) {
  for (const Comparison& c : comparisons()) {
    const auto alone = c.compute(1, GradMode::overwrite, 0);
    for (const int threads : {2, 3, 7})
      EXPECT_EQ(c.compute(threads, GradMode::overwrite, 0), alone) << c.instance.name;
  }
}

TEST(Conv2dDirect, IsForManyWeightsAndFewCells) {
  const Conv2dProblem deep{DType::f32, 4, 2, 2, 512, 512, 3, 3, 1, 1, 1};
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight}) {
    const auto pays = [&](auto change) {
      Conv2dProblem p = deep;
      change(p);
      return cpu::direct_conv2d_pays(p, pass);
    };
    EXPECT_TRUE(pays([](Conv2dProblem&) {}));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.dtype = DType::f64; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.groups = 2; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.h = p.w = 64; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.c = p.o = 32; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.c = 3; }));
  }
}

TEST(Conv2dDirect, LeavesConstantWeightsOfOneImageToLayouts) {
  Conv2dProblem p{DType::f32, 4, 2, 2, 512, 512, 3, 3, 1, 1, 1};
  EXPECT_TRUE(cpu::direct_conv2d_beats_layouts(p));
  p.n = 1;
  EXPECT_TRUE(cpu::direct_conv2d_pays(p, Pass::forward));
  EXPECT_FALSE(cpu::direct_conv2d_beats_layouts(p));
}

}  // namespace
}  // namespace nf::test
