// The CPU's Winograd convolution against plain sums in double, at every kind of edge; and its error
// against that of plain sums in float.
#include <algorithm>
#include <cmath>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/random.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

struct Operands {
  std::vector<float> x, w, bias, residual, dy;
};

std::vector<float> normals(std::int64_t count, std::uint64_t stream) {
  RandomStream random(random_key(7, Purpose::init), stream);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values)  // close enough: the sum of three uniform ones
    value = 2.0F * (random.uniform() + random.uniform() + random.uniform()) - 3.0F;
  return values;
}

Operands operands(const Conv2dProblem& p) {
  const std::int64_t outputs = p.n * p.out_h() * p.out_w() * p.o;
  return {normals(p.n * p.h * p.w * p.c, 1), normals(p.o * p.kh * p.kw * p.c, 2), normals(p.o, 3),
          normals(outputs, 4), normals(outputs, 5)};
}

/// y without what follows, dx and dw, in T.
template <typename T>
std::vector<std::vector<T>> plain_sums(const Conv2dProblem& p, const Operands& in) {
  std::vector<T> y(in.dy.size()), dx(in.x.size()), dw(in.w.size());
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t row = 0; row < p.out_h(); ++row)
      for (std::int64_t column = 0; column < p.out_w(); ++column)
        for (std::int64_t kh = 0; kh < p.kh; ++kh)
          for (std::int64_t kw = 0; kw < p.kw; ++kw) {
            const std::int64_t h = row + kh - p.padding, w = column + kw - p.padding;
            if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
            const auto cell =
                static_cast<std::size_t>(((n * p.out_h() + row) * p.out_w() + column) * p.o);
            const auto pixel = static_cast<std::size_t>(((n * p.h + h) * p.w + w) * p.c);
            for (std::int64_t o = 0; o < p.o; ++o) {
              const auto filter = static_cast<std::size_t>(((o * p.kh + kh) * p.kw + kw) * p.c);
              const auto out = cell + static_cast<std::size_t>(o);
              const T upstream = in.dy[out];
              for (std::size_t c = 0; c < static_cast<std::size_t>(p.c); ++c) {
                y[out] += T{in.x[pixel + c]} * T{in.w[filter + c]};
                dx[pixel + c] += upstream * T{in.w[filter + c]};
                dw[filter + c] += upstream * T{in.x[pixel + c]};
              }
            }
          }
  return {y, dx, dw};
}

class Winograd {
 public:
  Winograd(const Conv2dProblem& problem, int threads) : problem_(problem), threads_(threads) {}

  std::vector<float> forward(const Operands& in, bool with_bias, bool with_residual) const {
    std::vector<float> y(in.dy.size(), kUntouched);
    run(Pass::forward, [&](const cpu::WinogradConv2d& path) {
      path.forward(in.x.data(), in.w.data(), with_bias ? in.bias.data() : nullptr,
                   with_residual ? in.residual.data() : nullptr, y.data());
    });
    return y;
  }
  std::vector<std::vector<float>> all(const Operands& in, GradMode mode, float held) const {
    std::vector<float> dx(in.x.size(), held), dw(in.w.size(), held);
    run(Pass::backward_input, [&](const cpu::WinogradConv2d& path) {
      path.backward_input(in.dy.data(), in.w.data(), dx.data(), mode);
    });
    run(Pass::backward_weight, [&](const cpu::WinogradConv2d& path) {
      path.backward_weight(in.x.data(), in.dy.data(), dw.data(), mode);
    });
    return {forward(in, false, false), dx, dw};
  }

 private:
  static constexpr float kUntouched = 1e6F;

  // In a workspace of exactly the size asked for, full of what must not be read.
  template <typename Fn>
  void run(Pass pass, const Fn& fn) const {
    const std::int64_t bytes = cpu::winograd_conv2d_workspace(problem_, pass, threads_);
    ASSERT_EQ(bytes % 64, 0);
    struct alignas(64) Line {
      float values[16];
    };
    std::vector<Line> lines(static_cast<std::size_t>(bytes / 64));
    for (Line& line : lines) std::ranges::fill(line.values, std::nanf(""));
    fn(cpu::WinogradConv2d{
        problem_, threads_, {reinterpret_cast<std::byte*>(lines.data()), bytes}});
  }

  Conv2dProblem problem_;
  int threads_;
};

Conv2dProblem problem(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c,
                      std::int64_t o, std::int64_t padding) {
  return {.n = n, .h = h, .w = w, .c = c, .o = o, .kh = 3, .kw = 3, .padding = padding};
}

// Whole tiles and parts of them; one and several panels of channels, and a rest; one group of tiles
// and several, the last one shorter; every padding.
const std::vector<Conv2dProblem> kProblems{
    problem(1, 4, 4, 16, 16, 1),   problem(2, 7, 9, 16, 48, 1),  problem(1, 3, 3, 32, 16, 0),
    problem(1, 6, 5, 16, 80, 2),   problem(3, 13, 6, 48, 32, 1), problem(1, 1, 1, 16, 16, 1),
    problem(2, 33, 31, 32, 32, 1), problem(5, 8, 8, 64, 144, 1), problem(1, 30, 18, 80, 64, 0)};

std::string name_of(const Conv2dProblem& p) {
  return fmt::format("{} images of {}x{}, {} to {} channels, padding {}", p.n, p.h, p.w, p.c, p.o,
                     p.padding);
}

// Of sums over 9 c, 9 o or all cells of products of normal numbers, with about twice the error of a
// plain sum, see below; however short they are, the transforms' own.
double allowed(std::int64_t length) {
  length = std::max<std::int64_t>(length, 36);
  return 2 * tolerance({length, std::sqrt(static_cast<double>(length))}, 0x1p-23);
}

std::vector<double> allowed(const Conv2dProblem& p) {
  return {allowed(9 * p.c), allowed(9 * p.o), allowed(p.n * p.out_h() * p.out_w())};
}

TEST(Conv2dWinograd, MatchesPlainSums) {
  for (const Conv2dProblem& p : kProblems) {
    ASSERT_TRUE(cpu::winograd_conv2d_possible(p));
    const Operands in = operands(p);
    const auto expected = plain_sums<double>(p, in);
    for (const auto mode : {GradMode::overwrite, GradMode::accumulate}) {
      const float held = 3.0F;
      const auto found = Winograd(p, 2).all(in, mode, held);
      const std::vector<double> bounds = allowed(p);
      for (std::size_t i = 0; i < 3; ++i) {
        std::vector<double> wanted = expected[i];
        if (i > 0 && mode == GradMode::accumulate)
          for (double& value : wanted) value += held;
        expect_close({found[i].begin(), found[i].end()}, wanted, bounds[i],
                     fmt::format("{}, {}", name_of(p), i));
      }
    }
  }
}

TEST(Conv2dWinograd, DoesWhatFollows) {
  for (Conv2dProblem p : kProblems)
    for (const auto activation : {Activation::none, Activation::relu, Activation::relu6})
      for (const bool adds : {false, true}) {
        p.activation = activation;
        p.residual = adds;
        const Operands in = operands(p);
        std::vector<double> wanted = plain_sums<double>(p, in)[0];
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          wanted[i] += in.bias[i % in.bias.size()];
          if (adds) wanted[i] += in.residual[i];
          if (activation != Activation::none)
            wanted[i] = std::min(std::max(wanted[i], 0.0), upper_bound(activation));
        }
        const std::vector<float> found = Winograd(p, 2).forward(in, true, adds);
        expect_close({found.begin(), found.end()}, wanted, allowed(p)[0], name_of(p));
      }
}

TEST(Conv2dWinograd, LetsANaNThrough) {
  Conv2dProblem p = kProblems[1];
  p.activation = Activation::relu6;
  Operands in = operands(p);
  in.x[0] = std::nanf("");
  const std::vector<float> y = Winograd(p, 1).forward(in, true, false);
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_FALSE(std::isnan(y.back()));
}

TEST(Conv2dWinograd, HasTheSameBitsForAnyNumberOfThreads) {
  for (const Conv2dProblem& p : kProblems) {
    const Operands in = operands(p);
    const auto alone = Winograd(p, 1).all(in, GradMode::accumulate, 0.5F);
    for (const int threads : {2, 3, 7, 64})
      EXPECT_EQ(Winograd(p, threads).all(in, GradMode::accumulate, 0.5F), alone) << name_of(p);
  }
}

TEST(Conv2dWinograd, TakesBuffersForThreadsThatHaveAGroup) {
  const Conv2dProblem p = problem(1, 32, 32, 64, 64, 1);  // 64 tiles
  const auto bytes = [&](int threads) {
    return cpu::winograd_conv2d_workspace(p, Pass::forward, threads);
  };
  EXPECT_LT(bytes(1), bytes(2));
  EXPECT_EQ(bytes(64), bytes(200));
  EXPECT_LT(bytes(64), bytes(1) + 9 * (bytes(2) - bytes(1)));
}

// What winograd.h says of it.
TEST(Conv2dWinograd, ErrsTwiceAsMuchAsPlainSums) {
  const Conv2dProblem p = problem(1, 16, 16, 64, 64, 1);
  const Operands in = operands(p);
  const auto exact = plain_sums<double>(p, in);
  const auto plain = plain_sums<float>(p, in);
  const auto found = Winograd(p, 1).all(in, GradMode::overwrite, 0);
  const auto error = [](const std::vector<float>& values, const std::vector<double>& wanted) {
    double squares = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      squares += (values[i] - wanted[i]) * (values[i] - wanted[i]);
    return std::sqrt(squares / static_cast<double>(values.size()));
  };
  for (std::size_t i = 0; i < 3; ++i) {
    const double ratio = error(found[i], exact[i]) / error(plain[i], exact[i]);
    RecordProperty(fmt::format("ratio{}", i), fmt::format("{:.2f}", ratio));
    fmt::print("error of pass {}: {:.2f} times a plain sum's\n", i, ratio);
    EXPECT_GT(ratio, 1.0);
    EXPECT_LT(ratio, 2.2);
  }
}

TEST(Conv2dWinograd, IsForManyTilesAndFewFilters) {
  const Conv2dProblem wide = problem(4, 32, 32, 64, 64, 1);
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight}) {
    const auto pays = [&](auto change) {
      Conv2dProblem p = wide;
      change(p);
      return cpu::winograd_conv2d_pays(p, pass);
    };
    EXPECT_TRUE(pays([](Conv2dProblem&) {}));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.dtype = DType::f64; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.groups = 2; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.stride = 2; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.padding = 3; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.kw = 1; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.c = 72; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.o = 72; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.c = 16; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.h = p.w = 5; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.n = 0; }));
    // Tiles of which a quarter lies beyond the map, and half of them.
    EXPECT_TRUE(pays([](Conv2dProblem& p) { p.n = 64, p.h = p.w = 7; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.n = 64, p.h = p.w = 6; }));
    EXPECT_TRUE(pays([](Conv2dProblem& p) { p.n = 15, p.h = p.w = 8, p.c = p.o = 256; }));
    EXPECT_FALSE(pays([](Conv2dProblem& p) { p.n = 14, p.h = p.w = 8, p.c = p.o = 256; }));
  }
}

}  // namespace
}  // namespace nf::test
