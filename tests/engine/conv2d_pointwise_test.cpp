// The CPU's path for 1x1 filters at sizes that fill tiles and panels and at sizes that don't, those
// included for which the backend takes another.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/backends/cpu/conv2d_paths.h"
#include "tests/support/expect.h"
#include "tests/support/op_cases.h"

namespace nf::test {
namespace {

struct Sizes {
  std::int64_t n, h, w, c, o;
};

// A panel holds 256 channels, a tile 6 rows and up to 64 columns.
constexpr Sizes kPointwiseSizes[] = {{1, 1, 1, 1, 1},     {1, 2, 3, 3, 5},    {2, 3, 3, 16, 17},
                                     {3, 1, 7, 47, 33},   {1, 4, 4, 64, 128}, {2, 5, 5, 257, 48},
                                     {2, 4, 4, 520, 100}, {5, 3, 4, 80, 260}, {1, 17, 19, 33, 111}};

// Small multiples of an eighth, of which floats hold the sums of products exactly.
std::vector<float> pattern(std::int64_t count, int seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((static_cast<int>(i) * 37 + seed * 11) % 23 - 11) / 8.0F;
  return values;
}

// out[i][j] = init[j] + sum over k of a(i, k) b(k, j), in double.
template <typename A, typename B, typename Init>
Values product(std::int64_t rows, std::int64_t depth, std::int64_t columns, const A& a, const B& b,
               const Init& init) {
  Values out;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) {
      double sum = init(i, j);
      for (std::int64_t k = 0; k < depth; ++k) sum += double{a(i, k)} * double{b(k, j)};
      out.push_back(sum);
    }
  return out;
}

void expect_same(const std::vector<float>& found, const Values& expected, const std::string& name) {
  expect_close(Values(found.begin(), found.end()), expected, 0.0, name);
}

TEST(Conv2dPointwise, MatchesPlainSums) {
  for (const Sizes& s : kPointwiseSizes) {
    const Conv2dProblem p{.n = s.n, .h = s.h, .w = s.w, .c = s.c, .o = s.o, .kh = 1, .kw = 1};
    const std::int64_t cells = s.n * s.h * s.w;
    const auto x = pattern(cells * s.c, 1), w = pattern(s.o * s.c, 2), dy = pattern(cells * s.o, 3);
    const auto at_x = [&](std::int64_t i, std::int64_t c) { return x[i * s.c + c]; };
    const auto at_w = [&](std::int64_t o, std::int64_t c) { return w[o * s.c + c]; };
    const auto at_dy = [&](std::int64_t i, std::int64_t o) { return dy[i * s.o + o]; };
    const auto turned = [](const auto& at) {
      return [&at](std::int64_t i, std::int64_t j) { return at(j, i); };
    };
    for (const int threads : {1, 3}) {
      const cpu::PointwiseConv2d path{p, threads};
      const std::string name =
          fmt::format("{}x{}x{}x{} to {}, {} threads", s.n, s.h, s.w, s.c, s.o, threads);
      // What is overwritten may hold anything.
      constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
      std::vector<float> y(dy.size(), kNan), dx(x.size(), kNan), dw(w.size(), kNan);
      const auto zero = [](std::int64_t, std::int64_t) { return 0.0; };
      path.forward(x.data(), w.data(), nullptr, nullptr, y.data());
      expect_same(y, product(cells, s.c, s.o, at_x, turned(at_w), zero), name + ", forward");
      for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
        const double before = mode == GradMode::accumulate ? 2.0 : 0.0;
        if (mode == GradMode::accumulate) {
          std::fill(dx.begin(), dx.end(), 2.0F);
          std::fill(dw.begin(), dw.end(), 2.0F);
        }
        const auto init = [&](std::int64_t, std::int64_t) { return before; };
        path.backward_input(dy.data(), w.data(), dx.data(), mode);
        expect_same(dx, product(cells, s.o, s.c, at_dy, at_w, init), name + ", backward_input");
        path.backward_weight(x.data(), dy.data(), dw.data(), mode);
        expect_same(dw, product(s.o, cells, s.c, turned(at_dy), at_x, init),
                    name + ", backward_weight");
      }
    }
  }
}

TEST(Conv2dPointwise, DoesWhatFollows) {
  for (const Sizes& s : kPointwiseSizes) {
    Conv2dProblem p{.n = s.n, .h = s.h, .w = s.w, .c = s.c, .o = s.o, .kh = 1, .kw = 1};
    const std::int64_t cells = s.n * s.h * s.w;
    const auto x = pattern(cells * s.c, 1), w = pattern(s.o * s.c, 2), bias = pattern(s.o, 4);
    const auto residual = pattern(cells * s.o, 5);
    for (const auto activation : {Activation::none, Activation::relu, Activation::relu6})
      for (const bool offsets : {false, true})
        for (const bool adds : {false, true}) {
          p.activation = activation;
          p.residual = adds;
          Values expected = product(
              cells, s.c, s.o, [&](std::int64_t i, std::int64_t c) { return x[i * s.c + c]; },
              [&](std::int64_t c, std::int64_t o) { return w[o * s.c + c]; },
              [&](std::int64_t i, std::int64_t o) {
                return (offsets ? double{bias[o]} : 0) + (adds ? double{residual[i * s.o + o]} : 0);
              });
          if (activation != Activation::none)
            for (double& value : expected) value = std::clamp(value, 0.0, upper_bound(activation));
          std::vector<float> y(residual.size(), 1e6F);
          cpu::PointwiseConv2d{p, 2}.forward(x.data(), w.data(), offsets ? bias.data() : nullptr,
                                             adds ? residual.data() : nullptr, y.data());
          expect_same(y, expected, fmt::format("{} to {} channels", s.c, s.o));
        }
  }
}

TEST(Conv2dPointwise, LetsANaNThrough) {
  const Conv2dProblem p{
      .n = 7, .h = 1, .w = 1, .c = 20, .o = 70, .kh = 1, .kw = 1, .activation = Activation::relu6};
  auto x = pattern(p.n * p.c, 1);
  const auto w = pattern(p.o * p.c, 2);
  x[0] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> y(static_cast<std::size_t>(p.n * p.o));
  cpu::PointwiseConv2d{p, 1}.forward(x.data(), w.data(), nullptr, nullptr, y.data());
  for (std::int64_t o = 0; o < p.o; ++o) EXPECT_TRUE(std::isnan(y[static_cast<std::size_t>(o)]));
  for (std::size_t i = static_cast<std::size_t>(p.o); i < y.size(); ++i)
    EXPECT_FALSE(std::isnan(y[i]));
}

TEST(Conv2dPointwise, HasTheSameBitsForAnyNumberOfThreads) {
  const auto floats_of = [](std::int64_t count, const char* name) {
    const Values values = random_values(count, name);
    return std::vector<float>(values.begin(), values.end());
  };
  for (const Sizes& s : kPointwiseSizes) {
    const Conv2dProblem p{.n = s.n, .h = s.h, .w = s.w, .c = s.c, .o = s.o, .kh = 1, .kw = 1};
    const std::int64_t cells = s.n * s.h * s.w;
    const auto x = floats_of(cells * s.c, "x"), w = floats_of(s.o * s.c, "w");
    const auto dy = floats_of(cells * s.o, "dy"), bias = floats_of(s.o, "bias");
    const auto all = [&](int threads) {
      const cpu::PointwiseConv2d path{p, threads};
      std::vector<float> y(dy.size()), dx(x.size(), 0.5F), dw(w.size(), 0.5F);
      path.forward(x.data(), w.data(), bias.data(), dy.data(), y.data());
      path.backward_input(dy.data(), w.data(), dx.data(), GradMode::accumulate);
      path.backward_weight(x.data(), dy.data(), dw.data(), GradMode::accumulate);
      return std::vector{y, dx, dw};
    };
    const auto alone = all(1);
    for (const int threads : {2, 3, 7, 64})
      EXPECT_EQ(all(threads), alone) << s.c << " to " << s.o << " channels";
  }
}

TEST(Conv2dPointwise, IsForFiltersOfOnePixelAndWholeVectors) {
  const Conv2dProblem wide{.n = 4, .h = 4, .w = 4, .c = 128, .o = 128, .kh = 1, .kw = 1};
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight}) {
    const auto pays = [&](auto change) {
      Conv2dProblem p = wide;
      change(p);
      return cpu::pointwise_conv2d_pays(p, pass);
    };
    EXPECT_TRUE(pays([](Conv2dProblem&) {}));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.dtype = DType::f64; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.groups = 2; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.stride = 2; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.padding = 1; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.kw = 3; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.n = 0; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.c = p.o = 136; }));
    EXPECT_EQ(pays([](Conv2dProblem& p) { p.n = 3; }), pass != Pass::forward);
    EXPECT_EQ(pays([](Conv2dProblem& p) { p.o = 112; }), pass != Pass::backward_weight);
  }
}

}  // namespace
}  // namespace nf::test
