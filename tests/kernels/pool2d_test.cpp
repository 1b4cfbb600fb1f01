#include "kernels/pool2d.h"

#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "tests/kernels/device.h"
#include "tests/kernels/sums.h"
#if !defined(NF_TESTS_ON_GPU)
#include "kernels/divider.h"
#endif

namespace nf::NF_TARGET::test {
namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Of a sum beside its terms: its factor, and the product with it.
constexpr int kOtherRoundings = 3;

PoolWindows windows(int64_t n, int64_t h, int64_t w, int64_t c, int64_t kernel, int64_t stride,
                    int64_t padding, bool count_include_pad = true) {
  return {.n = n,
          .h = h,
          .w = w,
          .c = c,
          .out_h = (h + 2 * padding - kernel) / stride + 1,
          .out_w = (w + 2 * padding - kernel) / stride + 1,
          .kernel = kernel,
          .stride = stride,
          .padding = padding,
          .count_include_pad = count_include_pad};
}

/// One more row and column of windows, which reach beyond the padding.
PoolWindows rounded_up(PoolWindows p) {
  ++p.out_h;
  ++p.out_w;
  return p;
}

std::string text(const PoolWindows& p) {
  const auto s = [](int64_t value) { return std::to_string(value); };
  return s(p.n) + "x" + s(p.h) + "x" + s(p.w) + "x" + s(p.c) + " kernel " + s(p.kernel) +
         " stride " + s(p.stride) + " padding " + s(p.padding);
}

int64_t in_size(const PoolWindows& p) { return p.n * p.h * p.w * p.c; }
int64_t out_size(const PoolWindows& p) { return p.n * p.out_h * p.out_w * p.c; }

/// Calls visit(input, output, index in the window) for each pair of elements that a window joins.
template <typename Visit>
void for_pairs(const PoolWindows& p, const Visit& visit) {
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t oh = 0; oh < p.out_h; ++oh)
      for (int64_t ow = 0; ow < p.out_w; ++ow)
        for (int64_t kh = 0; kh < p.kernel; ++kh)
          for (int64_t kw = 0; kw < p.kernel; ++kw) {
            const int64_t ih = oh * p.stride - p.padding + kh, iw = ow * p.stride - p.padding + kw;
            if (ih < 0 || ih >= p.h || iw < 0 || iw >= p.w) continue;
            for (int64_t c = 0; c < p.c; ++c)
              visit(static_cast<std::size_t>(((n * p.h + ih) * p.w + iw) * p.c + c),
                    static_cast<std::size_t>(((n * p.out_h + oh) * p.out_w + ow) * p.c + c),
                    kh * p.kernel + kw);
          }
}

/// Cells that the average of each output pixel counts, its padding included or not.
std::vector<int64_t> counts(const PoolWindows& p) {
  std::vector<int64_t> counts(static_cast<std::size_t>(out_size(p)));
  std::size_t element = 0;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t oh = 0; oh < p.out_h; ++oh)
      for (int64_t ow = 0; ow < p.out_w; ++ow)
        for (int64_t c = 0; c < p.c; ++c, ++element)
          for (int64_t kh = 0; kh < p.kernel; ++kh)
            for (int64_t kw = 0; kw < p.kernel; ++kw) {
              const int64_t ih = oh * p.stride - p.padding + kh;
              const int64_t iw = ow * p.stride - p.padding + kw;
              const int64_t edge = p.count_include_pad ? p.padding : 0;
              counts[element] +=
                  ih >= -edge && ih < p.h + edge && iw >= -edge && iw < p.w + edge ? 1 : 0;
            }
  return counts;
}

template <typename T>
struct Maxima {
  std::vector<T> values;
  std::vector<int64_t> indices;
};

template <typename T>
Maxima<T> reference_max(const PoolWindows& p, const std::vector<T>& x) {
  Maxima<T> result{std::vector<T>(static_cast<std::size_t>(out_size(p))),
                   std::vector<int64_t>(static_cast<std::size_t>(out_size(p)), -1)};
  for_pairs(p, [&](std::size_t in, std::size_t out, int64_t k) {
    const float candidate = to_host_float(x[in]), best = to_host_float(result.values[out]);
    const bool first = result.indices[out] < 0;
    if (!first && (std::isnan(best) || !(candidate > best || std::isnan(candidate)))) return;
    result.values[out] = x[in];
    result.indices[out] = k;
  });
  return result;
}

template <typename T, typename Index>
void check_max_forward(const PoolWindows& p, const std::vector<T>& values, int64_t x_offset = 0,
                       int64_t y_offset = 0, int64_t index_offset = 0) {
  SCOPED_TRACE(text(p));
  const Maxima<T> expected = reference_max(p, values);
  DeviceArray<T> x(values, x_offset), y(out_size(p), y_offset);
  DeviceArray<Index> argmax(out_size(p), index_offset);
  max_pool_forward(kStream, p, x.data(), y.data(), argmax.data());
  const std::vector<T> actual = y.host();
  const std::vector<Index> indices = argmax.host();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const float value = to_host_float(actual[i]), wanted = to_host_float(expected.values[i]);
    if (std::isnan(wanted))
      ASSERT_TRUE(std::isnan(value)) << "element " << i;
    else
      ASSERT_EQ(value, wanted) << "element " << i;
    ASSERT_EQ(indices[i], expected.indices[i]) << "element " << i;
  }
}

template <typename T, typename Index>
void check_max_backward(const PoolWindows& p, bool accumulate, int64_t index_offset = 0,
                        int64_t dy_offset = 0, int64_t dx_offset = 0) {
  SCOPED_TRACE(text(p));
  const std::vector<T> inputs = random_values<T>(in_size(p), 1);
  const std::vector<T> upstream = random_values<T>(out_size(p), 2);
  const std::vector<T> before = random_values<T>(in_size(p), 3);
  const Maxima<T> maxima = reference_max(p, inputs);
  std::vector<Sum> expected(inputs.size());
  if (accumulate)
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i].add(to_host_float(before[i]));
  for_pairs(p, [&](std::size_t in, std::size_t out, int64_t k) {
    if (maxima.indices[out] == k) expected[in].add(to_host_float(upstream[out]));
  });
  DeviceArray<Index> argmax(std::vector<Index>(maxima.indices.begin(), maxima.indices.end()),
                            index_offset);
  DeviceArray<T> dy(upstream, dy_offset), dx(before, dx_offset);
  max_pool_backward(kStream, p, argmax.data(), dy.data(), dx.data(), accumulate);
  expect_sums(dx.host(), expected, kOtherRoundings);
}

template <typename T>
void check_average(const PoolWindows& p, bool accumulate, int64_t in_offset = 0,
                   int64_t out_offset = 0) {
  SCOPED_TRACE(text(p));
  const std::vector<T> inputs = random_values<T>(in_size(p), 4);
  const std::vector<T> upstream = random_values<T>(out_size(p), 5);
  const std::vector<T> before = random_values<T>(in_size(p), 6);
  const std::vector<int64_t> count = counts(p);
  std::vector<Sum> means(upstream.size()), gradients(inputs.size());
  if (accumulate)
    for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i].add(to_host_float(before[i]));
  for_pairs(p, [&](std::size_t in, std::size_t out, int64_t) {
    const auto cells = static_cast<double>(count[out]);
    means[out].add(to_host_float(inputs[in]) / cells);
    gradients[in].add(to_host_float(upstream[out]) / cells);
  });
  DeviceArray<T> x(inputs, in_offset), y(out_size(p), out_offset);
  avg_pool_forward(kStream, p, x.data(), y.data());
  expect_sums(y.host(), means, kOtherRoundings);
  DeviceArray<T> dy(upstream, out_offset), dx(before, in_offset);
  avg_pool_backward(kStream, p, dy.data(), dx.data(), accumulate);
  expect_sums(dx.host(), gradients, kOtherRoundings);
}

struct Adaptive {
  int64_t n, h, w, c, out_h, out_w;
};

template <typename T>
void check_adaptive(const Adaptive& p, bool accumulate, int64_t in_offset = 0,
                    int64_t out_offset = 0) {
  SCOPED_TRACE(std::to_string(p.h) + "x" + std::to_string(p.w) + " to " + std::to_string(p.out_h) +
               "x" + std::to_string(p.out_w) + ", " + std::to_string(p.c) + " channels");
  const std::vector<T> inputs = random_values<T>(p.n * p.h * p.w * p.c, 7);
  const std::vector<T> upstream = random_values<T>(p.n * p.out_h * p.out_w * p.c, 8);
  const std::vector<T> before = random_values<T>(p.n * p.h * p.w * p.c, 9);
  std::vector<Sum> means(upstream.size()), gradients(inputs.size());
  if (accumulate)
    for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i].add(to_host_float(before[i]));
  const auto bounds = [](int64_t cell, int64_t in, int64_t out) {
    const double step = static_cast<double>(in) / static_cast<double>(out);
    const auto at = static_cast<double>(cell);
    return std::pair{static_cast<int64_t>(std::floor(at * step + 1e-9)),
                     static_cast<int64_t>(std::ceil((at + 1) * step - 1e-9))};
  };
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t oh = 0; oh < p.out_h; ++oh)
      for (int64_t ow = 0; ow < p.out_w; ++ow) {
        const auto [top, bottom] = bounds(oh, p.h, p.out_h);
        const auto [left, right] = bounds(ow, p.w, p.out_w);
        const auto cells = static_cast<double>((bottom - top) * (right - left));
        for (int64_t ih = top; ih < bottom; ++ih)
          for (int64_t iw = left; iw < right; ++iw)
            for (int64_t c = 0; c < p.c; ++c) {
              const auto in = static_cast<std::size_t>(((n * p.h + ih) * p.w + iw) * p.c + c);
              const auto out =
                  static_cast<std::size_t>(((n * p.out_h + oh) * p.out_w + ow) * p.c + c);
              means[out].add(to_host_float(inputs[in]) / cells);
              gradients[in].add(to_host_float(upstream[out]) / cells);
            }
      }
  DeviceArray<T> x(inputs, in_offset);
  DeviceArray<T> y(static_cast<int64_t>(upstream.size()), out_offset);
  adaptive_avg_pool_forward(kStream, p.n, p.h, p.w, p.c, p.out_h, p.out_w, x.data(), y.data());
  expect_sums(y.host(), means, kOtherRoundings);
  DeviceArray<T> dy(upstream, out_offset), dx(before, in_offset);
  adaptive_avg_pool_backward(kStream, p.n, p.h, p.w, p.c, p.out_h, p.out_w, dy.data(), dx.data(),
                             accumulate);
  expect_sums(dx.host(), gradients, kOtherRoundings);
}

// Tails, one channel, one row, one pixel, cells that no window covers, windows that overlap, rows
// and columns beyond the last window.
const std::vector<PoolWindows> kShapes = {
    windows(2, 6, 8, 8, 2, 2, 0),
    windows(2, 5, 7, 12, 2, 2, 0),
    windows(1, 7, 6, 16, 3, 2, 1),
    windows(2, 4, 5, 3, 3, 1, 1),
    windows(1, 1, 9, 8, 3, 2, 1),
    windows(1, 9, 1, 1, 3, 1, 1),
    windows(1, 7, 8, 8, 3, 3, 0),
    windows(2, 5, 5, 5, 1, 2, 0),
    windows(3, 2, 2, 264, 2, 2, 0),
    windows(1, 1, 1, 1, 1, 1, 0),
    windows(1, 7, 9, 8, 5, 1, 2),
    windows(2, 3, 3, 8, 3, 4, 1),
    rounded_up(windows(2, 5, 7, 8, 2, 2, 0)),
    rounded_up(windows(1, 6, 8, 3, 3, 2, 1)),
};

template <typename T>
class KernelsPool2d : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsPool2d, StorageTypes);

TYPED_TEST(KernelsPool2d, TheMaximumAndItsPlace) {
  for (const PoolWindows& p : kShapes) {
    const std::vector<TypeParam> x = random_values<TypeParam>(in_size(p), 1);
    check_max_forward<TypeParam, std::uint8_t>(p, x);
    check_max_forward<TypeParam, std::int32_t>(p, x);
  }
  const PoolWindows wide = windows(1, 20, 19, 8, 17, 2, 8);
  check_max_forward<TypeParam, std::int32_t>(wide, random_values<TypeParam>(in_size(wide), 1));
}

TYPED_TEST(KernelsPool2d, TheFirstOfEqualMaximaWins) {
  for (const PoolWindows& p : kShapes)
    check_max_forward<TypeParam, std::uint8_t>(
        p, std::vector<TypeParam>(static_cast<std::size_t>(in_size(p)),
                                  from_host_float<TypeParam>(-0.5F)));
}

TYPED_TEST(KernelsPool2d, NaNWinsAndInfinitiesCount) {
  for (const PoolWindows& p : kShapes) {
    std::vector<TypeParam> x = random_values<TypeParam>(in_size(p), 1);
    const float some[] = {kNaN, kInfinity, -kInfinity};
    for (std::size_t i = 0; i < x.size(); ++i)
      if (i % 5 < 3) x[i] = from_host_float<TypeParam>(some[i % 5]);
    check_max_forward<TypeParam, std::uint8_t>(p, x);
    check_max_forward<TypeParam, std::uint8_t>(
        p, std::vector<TypeParam>(x.size(), from_host_float<TypeParam>(-kInfinity)));
  }
}

TYPED_TEST(KernelsPool2d, TheMaximumWithoutItsPlace) {
  const PoolWindows p = kShapes[2];
  const std::vector<TypeParam> values = random_values<TypeParam>(in_size(p), 1);
  DeviceArray<TypeParam> x(values), y(out_size(p));
  max_pool_forward(kStream, p, x.data(), y.data(), static_cast<std::uint8_t*>(nullptr));
  const Maxima<TypeParam> expected = reference_max(p, values);
  const std::vector<TypeParam> actual = y.host();
  for (std::size_t i = 0; i < actual.size(); ++i)
    ASSERT_EQ(to_host_float(actual[i]), to_host_float(expected.values[i])) << "element " << i;
}

TYPED_TEST(KernelsPool2d, TheMaximumsGradient) {
  for (const PoolWindows& p : kShapes)
    for (const bool accumulate : {false, true}) {
      check_max_backward<TypeParam, std::uint8_t>(p, accumulate);
      check_max_backward<TypeParam, std::int32_t>(p, accumulate);
    }
  check_max_backward<TypeParam, std::int32_t>(windows(1, 20, 19, 8, 17, 2, 8), false);
}

TYPED_TEST(KernelsPool2d, Averages) {
  for (PoolWindows p : kShapes)
    for (const bool accumulate : {false, true}) {
      check_average<TypeParam>(p, accumulate);
      p.count_include_pad = false;
      check_average<TypeParam>(p, accumulate);
    }
  // Large enough for several threads to share a window, and for some of them to get no cell of it.
  check_average<TypeParam>(windows(1, 12, 14, 8, 9, 3, 4), false);
  check_average<TypeParam>(windows(1, 9, 9, 8, 9, 5, 4, false), true);
}

TYPED_TEST(KernelsPool2d, AveragesOfAGivenNumber) {
  for (const Adaptive& p :
       {Adaptive{2, 7, 7, 16, 1, 1}, Adaptive{1, 33, 40, 3, 1, 1}, Adaptive{3, 1, 1, 5, 1, 1},
        Adaptive{1, 8, 12, 8, 4, 3}, Adaptive{2, 5, 7, 8, 3, 2}, Adaptive{1, 7, 10, 1, 3, 10},
        Adaptive{1, 3, 3, 8, 5, 4}, Adaptive{1, 1, 9, 24, 1, 2}, Adaptive{1, 20, 18, 12, 3, 4},
        Adaptive{2, 2, 2, 264, 1, 1}})
    for (const bool accumulate : {false, true}) check_adaptive<TypeParam>(p, accumulate);
}

TYPED_TEST(KernelsPool2d, WhereAnyOperandIsMisaligned) {
  const PoolWindows p = windows(1, 6, 5, 16, 3, 2, 1);
  const std::vector<TypeParam> x = random_values<TypeParam>(in_size(p), 1);
  for (const auto& [a, b, c] : {std::tuple{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0, 0, 4}}) {
    check_max_forward<TypeParam, std::uint8_t>(p, x, a, b, c);
    check_max_forward<TypeParam, std::int32_t>(p, x, a, b, c);
    check_max_backward<TypeParam, std::uint8_t>(p, true, c, b, a);
    check_max_backward<TypeParam, std::int32_t>(p, false, c, b, a);
    check_average<TypeParam>(p, true, a, b);
    check_adaptive<TypeParam>({1, 6, 5, 16, 2, 2}, false, a, b);
  }
}

TYPED_TEST(KernelsPool2d, NoImages) {
  const PoolWindows p = windows(0, 4, 4, 8, 2, 2, 0);
  DeviceArray<TypeParam> x(1), y(1);
  DeviceArray<std::uint8_t> argmax(1);
  max_pool_forward(kStream, p, x.data(), y.data(), argmax.data());
  max_pool_backward(kStream, p, argmax.data(), y.data(), x.data(), false);
  avg_pool_forward(kStream, p, x.data(), y.data());
  avg_pool_backward(kStream, p, y.data(), x.data(), false);
  adaptive_avg_pool_forward(kStream, 0, 4, 4, 8, 1, 1, x.data(), y.data());
  adaptive_avg_pool_backward(kStream, 0, 4, 4, 8, 1, 1, y.data(), x.data(), false);
}

TEST(KernelsPool2dLimits, SizesThatDoNotFitAreRefused) {
  float* none = nullptr;
  EXPECT_THROW(avg_pool_forward(kStream, windows(1, int64_t{1} << 29, 1, 1, 1, 1, 0), none, none),
               KernelError);
  EXPECT_THROW(adaptive_avg_pool_forward(kStream, 1, 1 << 20, 1, 1, 1 << 12, 1, none, none),
               KernelError);
  EXPECT_THROW(avg_pool_forward(kStream, windows(1, 1 << 16, 1 << 16, 4, 1, 1, 0), none, none),
               KernelError);
}

TEST(KernelsPool2dLimits, MoreThanTwoToTheSixteenthBlocks) {
  const int64_t pixels = (int64_t{1} << 24) + 300;
  const PoolWindows p = windows(pixels, 1, 1, 1, 1, 1, 0);
  DeviceArray<bf16> x(pixels), y(pixels);
  const std::vector<bf16> values = random_values<bf16>(1024, 1);
  for (int64_t i = 0; i < pixels; ++i) x.data()[i] = values[static_cast<std::size_t>(i % 1024)];
#if !defined(NF_TESTS_ON_GPU)
  // All blocks would take half a minute here.
  const simt::emulator::Options before = simt::emulator::options();
  simt::emulator::set_options({.only = {0, 65535, 65536, -1}});
#endif
  max_pool_forward(kStream, p, x.data(), y.data(), static_cast<std::uint8_t*>(nullptr));
  const std::vector<bf16> actual = y.host();
#if !defined(NF_TESTS_ON_GPU)
  simt::emulator::set_options(before);
#endif
  for (const int64_t block : {int64_t{0}, int64_t{65535}, int64_t{65536}, (pixels - 1) / 256})
    for (int64_t i = block * 256; i < std::min(block * 256 + 256, pixels); ++i)
      ASSERT_EQ(actual[static_cast<std::size_t>(i)].bits,
                values[static_cast<std::size_t>(i % 1024)].bits)
          << "element " << i;
}

#if !defined(NF_TESTS_ON_GPU)
TEST(KernelsDivider, DividesAsTheHostDoes) {
  const std::int32_t most = std::numeric_limits<std::int32_t>::max();
  std::mt19937 random(1);
  std::uniform_int_distribution<std::int32_t> any(1, most);
  std::vector<std::int32_t> divisors = {most, most - 1, 1 << 30, (1 << 30) + 1, (1 << 30) - 1};
  for (std::int32_t d = 1; d < 700; ++d) divisors.push_back(d);
  for (int i = 0; i < 2000; ++i) divisors.push_back(any(random) >> (i % 31) | 1);
  for (const std::int32_t d : divisors) {
    const Divider by = make_divider(d);
    const std::int64_t last = most / d;
    for (const std::int64_t q :
         {std::int64_t{0}, std::int64_t{1}, last / 2, last - 1, last, any(random) % (last + 1)})
      for (const int64_t near : {-1, 0, 1}) {
        const int64_t value = q * d + near;
        if (value < 0 || value > most) continue;
        ASSERT_EQ(quotient(static_cast<std::int32_t>(value), by), value / d) << value << " / " << d;
      }
    ASSERT_EQ(quotient(most, by), most / d) << d;
  }
}
#endif

}  // namespace
}  // namespace nf::NF_TARGET::test
