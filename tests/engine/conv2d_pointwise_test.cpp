// The CPU's path for 1x1 filters at sizes that fill tiles and panels and at sizes that don't, those
// included for which the backend takes another.
#include <algorithm>
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

TEST(Conv2dPointwise, MatchesPlainSumsWithAnyNumberOfThreads) {
  for (const Sizes& s : kPointwiseSizes) {
    const Conv2dProblem p{.n = s.n, .h = s.h, .w = s.w, .c = s.c, .o = s.o, .kh = 1, .kw = 1};
    const std::int64_t cells = s.n * s.h * s.w;
    const auto x = pattern(cells * s.c, 1), w = pattern(s.o * s.c, 2), dy = pattern(cells * s.o, 3);
    const auto bias = pattern(s.o, 4), residual = pattern(cells * s.o, 5);
    const auto at_x = [&](std::int64_t i, std::int64_t c) { return x[i * s.c + c]; };
    const auto at_w = [&](std::int64_t o, std::int64_t c) { return w[o * s.c + c]; };
    const auto at_dy = [&](std::int64_t i, std::int64_t o) { return dy[i * s.o + o]; };
    const auto turned = [](const auto& at) {
      return [&at](std::int64_t i, std::int64_t j) { return at(j, i); };
    };
    for (const int threads : {1, 2, 3}) {
      const cpu::PointwiseConv2d path{p, threads};
      const std::string name =
          fmt::format("{}x{}x{}x{} to {}, {} threads", s.n, s.h, s.w, s.c, s.o, threads);
      // What is overwritten may hold anything.
      constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
      std::vector<float> y(dy.size(), kNan), dx(x.size(), kNan), dw(w.size(), kNan);
      const auto zero = [](std::int64_t, std::int64_t) { return 0.0; };
      path.forward(x.data(), w.data(), nullptr, nullptr, y.data());
      expect_same(y, product(cells, s.c, s.o, at_x, turned(at_w), zero), name + ", forward");
      Conv2dProblem fused = p;
      fused.activation = Activation::relu6;
      const cpu::PointwiseConv2d fused_path{fused, threads};
      fused_path.forward(x.data(), w.data(), bias.data(), residual.data(), y.data());
      Values expected =
          product(cells, s.c, s.o, at_x, turned(at_w), [&](std::int64_t i, std::int64_t o) {
            return double{bias[o]} + double{residual[i * s.o + o]};
          });
      for (double& value : expected) value = std::clamp(value, 0.0, 6.0);
      expect_same(y, expected, name + ", forward with bias, residual and ReLU6");
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

}  // namespace
}  // namespace nf::test
