// Positions beyond 2^31 in maps of which only the touched pages have memory: the first and the
// last blocks of a launch run, among zeros. The numbers are small integers, whose sums are exact.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/batch_norm.h"
#include "kernels/depthwise_conv2d.h"
#include "tests/kernels/device.h"
#include "tests/kernels/emulated.h"

namespace nf::simt::test {
namespace {

using std::int64_t;

constexpr int64_t kBeyond = int64_t{1} << 31;

template <typename T>
class KernelsBeyond32Bits : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsBeyond32Bits, StorageTypes);

// --- Batch norm: the last block that sums takes millions of elements, all beyond 2^31, the last
// two that write many thousands, of which kWritten are looked at.

constexpr int64_t kChannels = 3, kRows = (kBeyond + (1 << 24)) / kChannels + 7;
constexpr int64_t kElements = kRows * kChannels, kWritten = 4096;
static_assert(kElements % 8 == 5, "a tail behind the last vectors");

/// Where there is something but zeros: in the tail and just before it, and well before the end.
std::vector<int64_t> places() {
  std::vector<int64_t> all;
  for (const int64_t begin : {kElements - (1 << 20), kElements - 13})
    for (int64_t i = begin; i < begin + 13; ++i) all.push_back(i);
  return all;
}

TYPED_TEST(KernelsBeyond32Bits, BatchNormInEvaluation) {
  using T = TypeParam;
  HugeArray<T> x(kElements);
  if (x.failed()) GTEST_SKIP() << "no 8 GiB of addresses";
  const std::vector<float> betas{5, 6, 7};
  DeviceArray<float> beta(betas), ones(std::vector<float>{1, 1, 1}), zeros(std::vector<float>(3));
  const WithOptions ends({.only = {0, -1, -2}});
  batch_norm_forward_eval<T>(kStream, {.rows = kRows, .channels = kChannels}, x.data(), nullptr,
                             ones.data(), beta.data(), zeros.data(), ones.data(), x.data());
  for (int64_t i = kElements - kWritten; i < kElements; ++i)
    EXPECT_EQ(to_host_float(x.data()[i]), betas[static_cast<std::size_t>(i % kChannels)]) << i;
}

TYPED_TEST(KernelsBeyond32Bits, BatchNormInTraining) {
  using T = TypeParam;
  HugeArray<T> x(kElements), y(kElements);
  if (x.failed() || y.failed()) GTEST_SKIP() << "no 16 GiB of addresses";
  double sum[kChannels] = {}, squares[kChannels] = {};
  for (const int64_t i : places()) {
    const auto value = static_cast<float>(1024 * (1 + i % kChannels));
    x.data()[i] = from_host_float<T>(value);
    sum[i % kChannels] += value;
    squares[i % kChannels] += double{value} * value;
  }
  const std::vector<float> betas{5, 6, 7};
  DeviceArray<float> beta(betas), gamma(std::vector<float>{1, 1, 1});
  DeviceArray<float> running_mean(std::vector<float>(3)), running_var(std::vector<float>(3));
  DeviceArray<float> mean(3), invstd(3);
  // Zeros are what the blocks that do not run would leave.
  DeviceArray<std::uint8_t> workspace(
      std::vector<std::uint8_t>(static_cast<std::size_t>(batch_norm_workspace(kRows, kChannels))));
  const BatchNormOptions options{.rows = kRows, .channels = kChannels};
  // Which values are read is told by the results; of races, smaller tensors tell.
  const WithOptions ends({.races = false, .only = {0, -1, -2}});
  batch_norm_forward_train<T>(kStream, options, x.data(), nullptr, gamma.data(), beta.data(),
                              running_mean.data(), running_var.data(), y.data(), mean.data(),
                              invstd.data(), workspace.data());
  const auto rows = static_cast<double>(kRows);
  for (std::size_t c = 0; c < kChannels; ++c) {
    const double expected = sum[c] / rows, variance = squares[c] / rows - expected * expected;
    // Welford's updates and nine merges of moments, each of a few roundings.
    constexpr double kMoments = 64 * 0x1p-24;
    EXPECT_NEAR(mean.host()[c], expected, kMoments * expected);
    EXPECT_NEAR(invstd.host()[c], 1 / std::sqrt(variance + options.eps),
                kMoments / std::sqrt(variance + options.eps));
    EXPECT_NEAR(running_var.host()[c], 0.1 * variance, kMoments * variance);
  }
  for (int64_t i = kElements - kWritten; i < kElements; ++i) {
    const auto c = static_cast<std::size_t>(i % kChannels);
    const double expected =
        (double{to_host_float(x.data()[i])} - mean.host()[c]) * invstd.host()[c] + betas[c];
    EXPECT_NEAR(to_host_float(y.data()[i]), expected, (kRounding<T> + 0x1p-22) * expected) << i;
  }
}

TYPED_TEST(KernelsBeyond32Bits, BatchNormGradients) {
  using T = TypeParam;
  HugeArray<T> x(kElements), y(kElements), dy(kElements), dresidual(kElements);
  if (x.failed() || y.failed() || dy.failed() || dresidual.failed())
    GTEST_SKIP() << "no 32 GiB of addresses";
  double sum[kChannels] = {}, product[kChannels] = {};
  std::vector<double> gradient(kWritten);
  for (const int64_t i : places()) {
    // Every third row is blocked by the activation.
    const bool passes = i / kChannels % 3 != 0;
    const double value = 512.0 * static_cast<double>(1 + i % kChannels), g = passes ? 2 : 0;
    x.data()[i] = from_host_float<T>(static_cast<float>(value));
    dy.data()[i] = from_host_float<T>(2);
    y.data()[i] = from_host_float<T>(passes ? 1.0F : 0.0F);
    sum[i % kChannels] += g;
    product[i % kChannels] += g * value;
    if (i >= kElements - kWritten)
      gradient[static_cast<std::size_t>(i - (kElements - kWritten))] = g;
  }
  DeviceArray<float> ones(std::vector<float>{1, 1, 1}), zeros(std::vector<float>(3));
  DeviceArray<float> dgamma(3), dbeta(3);
  DeviceArray<std::uint8_t> workspace(
      std::vector<std::uint8_t>(static_cast<std::size_t>(batch_norm_workspace(kRows, kChannels))));
  const WithOptions ends({.races = false, .only = {0, -1, -2}});
  // dx takes the place of dy.
  batch_norm_backward<T>(kStream, {.rows = kRows, .channels = kChannels, .activate = true},
                         x.data(), y.data(), dy.data(), ones.data(), zeros.data(), zeros.data(),
                         ones.data(), dy.data(), dresidual.data(), dgamma.data(), dbeta.data(),
                         false, workspace.data());
  const auto rows = static_cast<double>(kRows);
  for (std::size_t c = 0; c < kChannels; ++c) {
    EXPECT_EQ(dbeta.host()[c], sum[c]) << c;
    EXPECT_EQ(dgamma.host()[c], product[c]) << c;
  }
  for (int64_t i = kElements - kWritten; i < kElements; ++i) {
    const auto c = static_cast<std::size_t>(i % kChannels);
    const double g = gradient[static_cast<std::size_t>(i - (kElements - kWritten))];
    EXPECT_EQ(to_host_float(dresidual.data()[i]), g) << i;
    const double slope = to_host_float(x.data()[i]) * product[c] / rows;
    const double expected = g - sum[c] / rows - slope;
    EXPECT_NEAR(
        to_host_float(dy.data()[i]), expected,
        kRounding<T> * std::abs(expected) + 0x1p-22 * (g + slope) + (sizeof(T) == 2 ? 0x1p-25 : 0))
        << i;
  }
}

// --- Depthwise convolution: a filter of 3x3 over small images of a million channels, of which a
// block takes some; all images hold zeros but the last.

struct Depthwise {
  DepthwiseProblem p;
  int64_t first;  // of the channels looked at
  int64_t count() const { return p.c - first; }
  int64_t in(int64_t h, int64_t w, int64_t c) const {
    return (((p.n - 1) * p.h + h) * p.w + w) * p.c + first + c;
  }
  int64_t out(int64_t h, int64_t w, int64_t c) const {
    return (((p.n - 1) * p.out_h + h) * p.out_w + w) * p.c + first + c;
  }
};

/// Both tensors end beyond 2^31. The last `count` channels are the last block's.
Depthwise make_depthwise(int64_t stride, int64_t channels, int64_t count) {
  DepthwiseProblem p{
      .h = 3, .w = 3, .c = channels, .kh = 3, .kw = 3, .stride = stride, .padding = 1};
  p.out_h = p.out_w = stride == 1 ? 3 : 2;
  p.n = kBeyond / (p.out_h * p.out_w * p.c) + 2;
  return {p, channels - count};
}

float small_integer(int64_t i) { return static_cast<float>(i * 7 % 5 - 2); }

/// The problems of each kernel: vectors at strides 1 and 2, and the general one.
template <typename T>
std::vector<Depthwise> depthwise_cases() {
  constexpr int64_t kMany = 1 << 20;
  return {make_depthwise(1, kMany, 8 * kVec<T>), make_depthwise(2, kMany, 8 * kVec<T>),
          make_depthwise(1, kMany + 1, 1)};
}

/// Calls visit(h, w, out_h, out_w, tap) for what a tap multiplies.
template <typename Visit>
void for_taps(const DepthwiseProblem& p, const Visit& visit) {
  for (int64_t oh = 0; oh < p.out_h; ++oh)
    for (int64_t ow = 0; ow < p.out_w; ++ow)
      for (int64_t tap = 0; tap < p.kh * p.kw; ++tap) {
        const int64_t h = oh * p.stride - p.padding + tap / p.kw;
        const int64_t w = ow * p.stride - p.padding + tap % p.kw;
        if (h >= 0 && h < p.h && w >= 0 && w < p.w) visit(h, w, oh, ow, tap);
      }
}

/// dy's last image, in the channels looked at.
template <typename T>
void fill_upstream(const Depthwise& d, T* dy) {
  for (int64_t h = 0; h < d.p.out_h; ++h)
    for (int64_t w = 0; w < d.p.out_w; ++w)
      for (int64_t c = 0; c < d.count(); ++c)
        dy[d.out(h, w, c)] = from_host_float<T>(small_integer(d.out(h, w, c)));
}

TYPED_TEST(KernelsBeyond32Bits, DepthwiseInputGradient) {
  using T = TypeParam;
  for (const Depthwise& d : depthwise_cases<T>()) {
    const DepthwiseProblem& p = d.p;
    HugeArray<T> dx(p.n * p.h * p.w * p.c), dy(p.n * p.out_h * p.out_w * p.c), filters(p.c * 9);
    if (dx.failed() || dy.failed() || filters.failed()) GTEST_SKIP() << "no 32 GiB of addresses";
    fill_upstream(d, dy.data());
    for (int64_t i = d.first * 9; i < p.c * 9; ++i)
      filters.data()[i] = from_host_float<T>(small_integer(i / 3));
    const WithOptions last({.only = {-1}});
    depthwise_backward_input(kStream, p, dy.data(), filters.data(), dx.data(), false);
    for (int64_t c = 0; c < d.count(); ++c) {
      std::vector<double> expected(9);
      for_taps(p, [&](int64_t h, int64_t w, int64_t oh, int64_t ow, int64_t tap) {
        expected[static_cast<std::size_t>(h * 3 + w)] +=
            double{small_integer(d.out(oh, ow, c))} * small_integer(((d.first + c) * 9 + tap) / 3);
      });
      for (int64_t i = 0; i < 9; ++i)
        ASSERT_EQ(to_host_float(dx.data()[d.in(i / 3, i % 3, c)]),
                  expected[static_cast<std::size_t>(i)])
            << "stride " << p.stride << ", " << p.c << " channels, of the last " << c << ", pixel "
            << i;
    }
  }
}

TYPED_TEST(KernelsBeyond32Bits, DepthwiseFilterGradient) {
  using T = TypeParam;
  for (const Depthwise& d : depthwise_cases<T>()) {
    const DepthwiseProblem& p = d.p;
    HugeArray<T> x(p.n * p.h * p.w * p.c), dy(p.n * p.out_h * p.out_w * p.c), dw(p.c * 9);
    HugeArray<std::uint8_t> workspace(depthwise_backward_weight_workspace(p));
    if (x.failed() || dy.failed() || dw.failed() || workspace.failed())
      GTEST_SKIP() << "no 32 GiB of addresses";
    fill_upstream(d, dy.data());
    for (int64_t i = 0; i < 9; ++i)
      for (int64_t c = 0; c < d.count(); ++c)
        x.data()[d.in(i / 3, i % 3, c)] = from_host_float<T>(small_integer(c + i));
    // The blocks of the last channels, in the general kernel one for each row of taps; then those
    // that add up, 8 channels of a tap each. Blocks of the one launch do no harm in the other.
    const int64_t chunks = (p.c + d.count() - 1) / d.count();
    const bool general = p.c % 2 == 1;
    emulator::Options options;
    const int64_t general_chunks = (p.c + 31) / 32;
    for (int64_t kh = 0; kh < 3; ++kh)
      options.only.push_back(general ? (kh + 1) * general_chunks - 1 : chunks - 1 - kh);
    for (int64_t tap = 0; tap < 9; ++tap)
      for (int64_t c = d.first; c < p.c; c += 8) options.only.push_back((tap * p.c + c) / 8);
    const WithOptions some(options);
    depthwise_backward_weight(kStream, p, x.data(), dy.data(), dw.data(), false, workspace.data());
    for (int64_t c = 0; c < d.count(); ++c) {
      std::vector<double> expected(9);
      for_taps(p, [&](int64_t h, int64_t w, int64_t oh, int64_t ow, int64_t tap) {
        expected[static_cast<std::size_t>(tap)] +=
            double{small_integer(d.out(oh, ow, c))} * small_integer(c + h * 3 + w);
      });
      for (int64_t tap = 0; tap < 9; ++tap)
        ASSERT_EQ(to_host_float(dw.data()[(d.first + c) * 9 + tap]),
                  expected[static_cast<std::size_t>(tap)])
            << "stride " << p.stride << ", " << p.c << " channels, of the last " << c << ", tap "
            << tap;
    }
  }
}

}  // namespace
}  // namespace nf::simt::test
