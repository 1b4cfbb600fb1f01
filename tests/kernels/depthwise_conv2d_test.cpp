#include "kernels/depthwise_conv2d.h"

#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "tests/kernels/device.h"
#include "tests/kernels/sums.h"

namespace nf::NF_TARGET::test {
namespace {

using std::int64_t;

/// Of a sum beside its terms: that with the bias.
constexpr int kOtherRoundings = 1;

struct Filter {
  int64_t kh, kw, stride, padding;
};

DepthwiseProblem problem(int64_t n, int64_t h, int64_t w, int64_t c, const Filter& f) {
  return {.n = n,
          .h = h,
          .w = w,
          .c = c,
          .kh = f.kh,
          .kw = f.kw,
          .stride = f.stride,
          .padding = f.padding,
          .out_h = (h + 2 * f.padding - f.kh) / f.stride + 1,
          .out_w = (w + 2 * f.padding - f.kw) / f.stride + 1};
}

std::string text(const DepthwiseProblem& p) {
  const auto s = [](int64_t value) { return std::to_string(value); };
  return s(p.n) + "x" + s(p.h) + "x" + s(p.w) + "x" + s(p.c) + " filters " + s(p.kh) + "x" +
         s(p.kw) + " stride " + s(p.stride) + " padding " + s(p.padding);
}

int64_t in_size(const DepthwiseProblem& p) { return p.n * p.h * p.w * p.c; }
int64_t out_size(const DepthwiseProblem& p) { return p.n * p.out_h * p.out_w * p.c; }
int64_t filters_size(const DepthwiseProblem& p) { return p.c * p.kh * p.kw; }

/// Calls visit(input, output, tap, channel) with the elements of each product.
template <typename Visit>
void for_products(const DepthwiseProblem& p, const Visit& visit) {
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t oh = 0; oh < p.out_h; ++oh)
      for (int64_t ow = 0; ow < p.out_w; ++ow)
        for (int64_t kh = 0; kh < p.kh; ++kh)
          for (int64_t kw = 0; kw < p.kw; ++kw) {
            const int64_t ih = oh * p.stride - p.padding + kh, iw = ow * p.stride - p.padding + kw;
            if (ih < 0 || ih >= p.h || iw < 0 || iw >= p.w) continue;
            for (int64_t c = 0; c < p.c; ++c)
              visit(static_cast<std::size_t>(((n * p.h + ih) * p.w + iw) * p.c + c),
                    static_cast<std::size_t>(((n * p.out_h + oh) * p.out_w + ow) * p.c + c),
                    static_cast<std::size_t>((c * p.kh + kh) * p.kw + kw),
                    static_cast<std::size_t>(c));
          }
}

template <typename T>
struct Values {
  explicit Values(const DepthwiseProblem& p)
      : x(random_values<T>(in_size(p), 1)),
        w(random_values<T>(filters_size(p), 2)),
        bias(random_values<T>(p.c, 3)),
        dy(random_values<T>(out_size(p), 4)),
        dx(random_values<T>(in_size(p), 5)),
        dw(random_values<T>(filters_size(p), 6)) {}
  std::vector<T> x, w, bias, dy;
  std::vector<T> dx, dw;  // what they hold before
};

/// How many elements each operand starts behind an aligned address.
struct Offsets {
  int64_t in = 0, filters = 0, out = 0;
};

template <typename T>
void check_forward(const DepthwiseProblem& p, const Values<T>& v, bool biased, Offsets off = {}) {
  std::vector<Sum> expected(static_cast<std::size_t>(out_size(p)));
  if (biased)
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i].add(to_host_float(v.bias[i % static_cast<std::size_t>(p.c)]));
  for_products(p, [&](std::size_t in, std::size_t out, std::size_t tap, std::size_t) {
    expected[out].add(double{to_host_float(v.x[in])} * to_host_float(v.w[tap]));
  });
  DeviceArray<T> x(v.x, off.in), w(v.w, off.filters), bias(v.bias, 1), y(out_size(p), off.out);
  depthwise_forward(kStream, p, x.data(), w.data(), biased ? bias.data() : nullptr, y.data());
  expect_sums(y.host(), expected, kOtherRoundings);
}

template <typename T>
void check_backward_input(const DepthwiseProblem& p, const Values<T>& v, bool accumulate,
                          Offsets off = {}) {
  std::vector<Sum> expected(v.dx.size());
  if (accumulate)
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i].add(to_host_float(v.dx[i]));
  for_products(p, [&](std::size_t in, std::size_t out, std::size_t tap, std::size_t) {
    expected[in].add(double{to_host_float(v.dy[out])} * to_host_float(v.w[tap]));
  });
  DeviceArray<T> dy(v.dy, off.out), w(v.w, off.filters), dx(v.dx, off.in);
  depthwise_backward_input(kStream, p, dy.data(), w.data(), dx.data(), accumulate);
  expect_sums(dx.host(), expected, kOtherRoundings);
}

template <typename T>
void check_backward_weight(const DepthwiseProblem& p, const Values<T>& v, bool accumulate,
                           Offsets off = {}) {
  std::vector<Sum> expected(v.dw.size());
  if (accumulate)
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i].add(to_host_float(v.dw[i]));
  for_products(p, [&](std::size_t in, std::size_t out, std::size_t tap, std::size_t) {
    expected[tap].add(double{to_host_float(v.x[in])} * to_host_float(v.dy[out]));
  });
  DeviceArray<T> x(v.x, off.in), dy(v.dy, off.out), dw(v.dw, off.filters);
  const int64_t bytes = depthwise_backward_weight_workspace(p);
  ASSERT_EQ(bytes % (filters_size(p) * 4), 0);
  DeviceArray<float> workspace(bytes / 4);
  depthwise_backward_weight(kStream, p, x.data(), dy.data(), dw.data(), accumulate,
                            workspace.data());
  expect_sums(dw.host(), expected, kOtherRoundings);
}

template <typename T>
void check(const DepthwiseProblem& p) {
  SCOPED_TRACE(text(p));
  const Values<T> values(p);
  for (const bool flag : {false, true}) {
    check_forward(p, values, flag);
    check_backward_input(p, values, flag);
    check_backward_weight(p, values, flag);
  }
}

template <typename T>
class KernelsDepthwiseConv2d : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsDepthwiseConv2d, StorageTypes);

TYPED_TEST(KernelsDepthwiseConv2d, FiltersOf3And5) {
  for (const int64_t k : {3, 5})
    for (const int64_t stride : {1, 2}) {
      // Padding from none to more than a filter's, columns that no filter reaches.
      for (int64_t padding = 0; padding <= k; ++padding)
        check<TypeParam>(problem(1, 6, 8, 8, {k, k, stride, padding}));
      check<TypeParam>(problem(2, 7, 5, 24, {k, k, stride, k / 2}));
      // Chunks of channels, the last of them smaller.
      check<TypeParam>(problem(1, 5, 6, 8 * 13, {k, k, stride, k / 2}));
      // Several tiles of columns, rows of several images in a block, several parts of dy.
      check<TypeParam>(problem(3, 11, 37, 16, {k, k, stride, k / 2}));
      // One row, one column, one pixel.
      check<TypeParam>(problem(1, 1, 9, 8, {k, k, stride, k / 2}));
      check<TypeParam>(problem(2, 9, 1, 8, {k, k, stride, k / 2}));
      check<TypeParam>(problem(1, 1, 1, 8, {k, k, stride, k / 2}));
    }
}

TYPED_TEST(KernelsDepthwiseConv2d, FiltersChannelsAndStridesOfOtherSizes) {
  for (const DepthwiseProblem& p :
       {problem(2, 5, 6, 3, {3, 3, 1, 1}), problem(1, 7, 6, 1, {3, 3, 2, 1}),
        problem(1, 6, 7, 33, {5, 5, 1, 2}), problem(1, 9, 10, 8, {3, 3, 3, 1}),
        problem(2, 4, 5, 8, {1, 1, 1, 0}), problem(2, 4, 5, 8, {1, 1, 2, 0}),
        problem(1, 9, 8, 16, {7, 7, 1, 3}), problem(1, 9, 8, 8, {7, 7, 2, 3}),
        problem(1, 6, 9, 5, {3, 5, 1, 1}), problem(1, 6, 9, 8, {5, 3, 2, 2}),
        problem(1, 12, 13, 8, {9, 11, 1, 4}), problem(1, 1, 40, 70, {1, 9, 2, 4})})
    check<TypeParam>(p);
}

TYPED_TEST(KernelsDepthwiseConv2d, WhereAnyOperandIsMisaligned) {
  for (const int64_t stride : {1, 2}) {
    const DepthwiseProblem p = problem(1, 6, 5, 16, {3, 3, stride, 1});
    const Values<TypeParam> values(p);
    for (const Offsets& off : {Offsets{1, 0, 0}, Offsets{0, 1, 0}, Offsets{0, 0, 1}}) {
      check_forward(p, values, true, off);
      check_backward_input(p, values, true, off);
      check_backward_weight(p, values, true, off);
    }
  }
}

TYPED_TEST(KernelsDepthwiseConv2d, WhatIsInfiniteOrNaNReachesItsOwnSumsAlone) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Filter& f : {Filter{3, 3, 1, 1}, Filter{3, 3, 2, 0}, Filter{3, 3, 2, 1},
                          Filter{5, 5, 1, 2}, Filter{5, 5, 2, 1}, Filter{7, 7, 1, 3}}) {
    const DepthwiseProblem p = problem(1, 8, 10, 8, f);
    SCOPED_TRACE(text(p));
    Values<TypeParam> v(p);
    v.w[0] = from_host_float<TypeParam>(infinity);  // of channel 0
    check_forward(p, v, false);
    check_backward_input(p, v, false);
    v.dy[1] = from_host_float<TypeParam>(infinity);   // of channel 1
    v.x.end()[-6] = from_host_float<TypeParam>(nan);  // of channel 2
    v.dy.end()[-5] = from_host_float<TypeParam>(nan);
    check_forward(p, v, false);
    check_backward_input(p, v, false);
    check_backward_weight(p, v, false);
  }
}

TYPED_TEST(KernelsDepthwiseConv2d, NoImages) {
  const DepthwiseProblem p = problem(0, 5, 5, 8, {3, 3, 1, 1});
  const Values<TypeParam> values(p);
  for (const bool accumulate : {false, true}) {
    check_forward(p, values, true);
    check_backward_input(p, values, accumulate);
    check_backward_weight(p, values, accumulate);
  }
}

TYPED_TEST(KernelsDepthwiseConv2d, TheSameSumsEachTime) {
  const DepthwiseProblem p = problem(3, 11, 20, 16, {3, 3, 1, 1});
  const Values<TypeParam> v(p);
  DeviceArray<TypeParam> x(v.x), dy(v.dy);
  DeviceArray<float> workspace(depthwise_backward_weight_workspace(p) / 4);
  const auto bits = [&] {
    DeviceArray<TypeParam> dw(v.dw);
    depthwise_backward_weight(kStream, p, x.data(), dy.data(), dw.data(), true, workspace.data());
    std::vector<float> values;
    for (const TypeParam value : dw.host()) values.push_back(to_host_float(value));
    return values;
  };
  const std::vector<float> first = bits();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bits(), first);
}

TEST(KernelsDepthwiseConv2dLimits, TheWorkspaceStaysSmall) {
  // At most a quarter of dy's bytes, or one set of filters.
  for (const Filter& f : {Filter{3, 3, 1, 1}, Filter{5, 5, 2, 2}, Filter{31, 31, 1, 15}})
    for (const int64_t n : {0, 1, 8, 256})
      for (const int64_t size : {1, 7, 56})
        for (const int64_t c : {1, 96, 960}) {
          if (size + 2 * f.padding < f.kh) continue;
          const DepthwiseProblem p = problem(n, size, size, c, f);
          const int64_t bytes = depthwise_backward_weight_workspace(p);
          EXPECT_GE(bytes, 4 * filters_size(p)) << text(p);
          EXPECT_LE(bytes, std::max(out_size(p), 4 * filters_size(p))) << text(p);
        }
}

TEST(KernelsDepthwiseConv2dLimits, SizesThatDoNotFitAreRefused) {
  const float* none = nullptr;
  EXPECT_THROW(depthwise_forward(kStream, problem(1, int64_t{1} << 28, 1, 1, {1, 1, 1, 0}), none,
                                 none, none, static_cast<float*>(nullptr)),
               KernelError);
  EXPECT_THROW(depthwise_backward_input(kStream, problem(1 << 20, 1 << 12, 1, 1, {1, 1, 1, 0}),
                                        none, none, static_cast<float*>(nullptr), false),
               KernelError);
}

TEST(KernelsDepthwiseConv2dLimits, MoreThanTwoToTheSixteenthBlocks) {
  // Of 256 rows of one pixel each.
  const int64_t rows = (int64_t{1} << 24) + 300;
  const DepthwiseProblem p = problem(rows, 1, 1, 1, {1, 1, 1, 0});
  DeviceArray<bf16> x(rows), y(rows);
  DeviceArray<bf16> w(std::vector<bf16>{from_host_float<bf16>(0.5F)});
  const std::vector<bf16> values = random_values<bf16>(1024, 1);
  for (int64_t i = 0; i < rows; ++i) x.data()[i] = values[static_cast<std::size_t>(i % 1024)];
#if !defined(NF_TESTS_ON_GPU)
  // All blocks would take a minute here.
  const simt::emulator::Options before = simt::emulator::options();
  simt::emulator::set_options({.only = {0, 65535, 65536, -1}});
#endif
  depthwise_forward(kStream, p, x.data(), w.data(), static_cast<const bf16*>(nullptr), y.data());
  const std::vector<bf16> actual = y.host();
#if !defined(NF_TESTS_ON_GPU)
  simt::emulator::set_options(before);
#endif
  for (const int64_t block : {int64_t{0}, int64_t{65535}, int64_t{65536}, (rows - 1) / 256})
    for (int64_t i = block * 256; i < std::min(block * 256 + 256, rows); ++i)
      ASSERT_EQ(to_host_float(actual[static_cast<std::size_t>(i)]),
                to_host_float(values[static_cast<std::size_t>(i % 1024)]) / 2)
          << "element " << i;
}

}  // namespace
}  // namespace nf::NF_TARGET::test
