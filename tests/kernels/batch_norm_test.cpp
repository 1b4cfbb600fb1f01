// Batch norm on the emulator or a GPU against the operator in double.
#include "kernels/batch_norm.h"

#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "tests/kernels/batch_norm_reference.h"
#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test {
namespace {

using namespace batch_norm;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <typename T>
class KernelsBatchNorm : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsBatchNorm, StorageTypes);

TYPED_TEST(KernelsBatchNorm, TrainsAsTheOperatorInDouble) {
  for (const Case& c : cases()) {
    Operands<TypeParam> at(c);
    const std::vector<float> mean_before = at.running_mean.host(),
                             var_before = at.running_var.host();
    at.train();
    expect_statistics(at, mean_before, var_before);
    // gamma * invstd and its product with the deviation, which the fused sum does not round.
    expect_output(at, at.mean.host(), training_scales(at), kUnit, at.y.host());
  }
}

TYPED_TEST(KernelsBatchNorm, EvaluatesAsTheOperatorInDouble) {
  for (const Case& c : cases()) {
    Operands<TypeParam> at(c);
    at.evaluate(at.y.data());
    const std::vector<TypeParam> y = at.y.host();
    // eps, its sum with the variance, the root and the quotient; the first two count by half.
    expect_output(at, at.running_mean.host(), running_scales(at), 3 * kUnit, y);
    at.evaluate(at.x.data());
    EXPECT_EQ(bits(at.x.host()), bits(y)) << text(c) << ", in place";
  }
}

TYPED_TEST(KernelsBatchNorm, GradientsAreTheOperatorsInDouble) {
  for (const Case& c : cases()) {
    Operands<TypeParam> at(c);
    at.train();
    const std::vector<float> zeros(static_cast<std::size_t>(c.channels));
    const std::vector<float> dgamma = at.dgamma.host(), dbeta = at.dbeta.host();
    at.backward(true);
    expect_gradients(at, dgamma, dbeta);
    at.backward(false);
    expect_gradients(at, zeros, zeros);
  }
}

TYPED_TEST(KernelsBatchNorm, GradientsMayReplaceTheirUpstream) {
  for (const Case& c : {Case{300, 24, true, true, 6}, Case{100, 5, true, true}}) {
    Operands<TypeParam> at(c);
    at.train();
    at.backward();
    const std::vector<std::uint32_t> dx = bits(at.dx.host()), dresidual = bits(at.dresidual.host());
    const std::vector<TypeParam> dy = at.dy.host();
    at.backward(at.y.data(), at.dx.data(), at.dy.data());
    EXPECT_EQ(bits(at.dx.host()), dx);
    EXPECT_EQ(bits(at.dy.host()), dresidual);
    std::copy(dy.begin(), dy.end(), at.dy.data());
    at.backward(at.y.data(), at.dy.data(), at.dresidual.data());
    EXPECT_EQ(bits(at.dy.host()), dx);
    EXPECT_EQ(bits(at.dresidual.host()), dresidual);
  }
}

// Outputs on both edges of the activation, of which storage rounds some to 0 and to the bound.
TYPED_TEST(KernelsBatchNorm, ComputesTheMaskOfTheStoredOutput) {
  struct Edge {
    float gamma, beta, bound;
  };
  for (const auto& [gamma, beta, bound] :
       {Edge{1, 0, kInfinity}, Edge{0x1p-20F, 0, 6}, Edge{0.02F, 6, 6}, Edge{0.02F, 6.1F, 6.1F},
        Edge{3e4F, 6e4F, kInfinity}}) {
    Operands<TypeParam> at({500, 12, false, true, bound});
    std::fill_n(at.gamma.data(), 12, gamma);
    std::fill_n(at.beta.data(), 12, beta);
    at.train();
    at.backward(nullptr, at.dx.data(), nullptr);
    const std::vector<std::uint32_t> dx = bits(at.dx.host());
    const std::vector<float> dgamma = at.dgamma.host(), dbeta = at.dbeta.host();
    at.backward(at.y.data(), at.dx.data(), nullptr);
    EXPECT_EQ(bits(at.dx.host()), dx) << gamma << " " << beta << " " << bound;
    EXPECT_EQ(at.dgamma.host(), dgamma) << gamma << " " << beta << " " << bound;
    EXPECT_EQ(at.dbeta.host(), dbeta) << gamma << " " << beta << " " << bound;
  }
}

TYPED_TEST(KernelsBatchNorm, StatisticsFarFromZero) {
  for (const std::int64_t channels : {3, 16}) {
    Operands<TypeParam> at({2000, channels}, 2997, 3003);
    const std::vector<float> mean_before = at.running_mean.host(),
                             var_before = at.running_var.host();
    at.train();
    expect_statistics(at, mean_before, var_before);
    expect_output(at, at.mean.host(), training_scales(at), kUnit, at.y.host());
  }
}

// The first row is what the others are summed relative to.
TYPED_TEST(KernelsBatchNorm, StatisticsWithAnOutlierInTheFirstRow) {
  Operands<TypeParam> at({5000, 4});
  for (std::int64_t c = 0; c < 4; ++c) at.x.data()[c] = from_host_float<TypeParam>(2000);
  const std::vector<float> mean_before = at.running_mean.host(), var_before = at.running_var.host();
  at.train();
  expect_statistics(at, mean_before, var_before);
}

TYPED_TEST(KernelsBatchNorm, AConstantChannelHasNoVariance) {
  Operands<TypeParam> at({777, 5});
  std::fill_n(at.x.data(), at.x.size(), from_host_float<TypeParam>(1000.1F));
  at.train();
  for (const float mean : at.mean.host())
    EXPECT_EQ(mean, to_host_float(from_host_float<TypeParam>(1000.1F)));
  for (const float invstd : at.invstd.host())
    EXPECT_EQ(invstd, static_cast<float>(1 / std::sqrt(1e-5)));
}

TYPED_TEST(KernelsBatchNorm, MisalignedOperandsGiveTheSameBits) {
  using T = TypeParam;
  const Case c{150, 16, true, true, 6};
  const BatchNormOptions options = options_of(c);
  Operands<T> at(c);
  at.train();
  at.backward();
  const std::vector<T> x = at.x.host(), residual = at.residual.host(), dy = at.dy.host();
  const std::vector<std::uint32_t> y = bits(at.y.host()), dx = bits(at.dx.host()),
                                   dresidual = bits(at.dresidual.host());
  const std::vector<float> mean = at.mean.host(), dgamma = at.dgamma.host();
  const std::vector<float> gamma = at.gamma.host(), beta = at.beta.host();
  for (int which = 0; which < 9; ++which) {
    const auto offset = [&](int operand) { return which == operand ? 1 : 0; };
    DeviceArray<T> mx(x, offset(0)), mresidual(residual, offset(1)), mdy(dy, offset(2));
    DeviceArray<T> my(at.y.size(), offset(3)), mdx(at.y.size(), offset(4)),
        mdresidual(at.y.size(), offset(5));
    DeviceArray<float> mgamma(gamma, offset(6)), mbeta(beta, offset(7)), mmean(16, offset(8)),
        minvstd(16, offset(8));
    batch_norm_forward_train<T>(kStream, options, mx.data(), mresidual.data(), mgamma.data(),
                                mbeta.data(), at.running_mean.data(), at.running_var.data(),
                                my.data(), mmean.data(), minvstd.data(), at.workspace.data());
    batch_norm_backward<T>(kStream, options, mx.data(), my.data(), mdy.data(), mgamma.data(),
                           mbeta.data(), mmean.data(), minvstd.data(), mdx.data(),
                           mdresidual.data(), at.dgamma.data(), at.dbeta.data(), false,
                           at.workspace.data());
    EXPECT_EQ(mmean.host(), mean) << which;
    EXPECT_EQ(bits(my.host()), y) << which;
    EXPECT_EQ(bits(mdx.host()), dx) << which;
    EXPECT_EQ(bits(mdresidual.host()), dresidual) << which;
    EXPECT_EQ(at.dgamma.host(), dgamma) << which;
  }
}

TYPED_TEST(KernelsBatchNorm, NaNStaysInItsChannelAndElement) {
  using T = TypeParam;
  Operands<T> at({50, 6, false, true, 6});
  at.x.data()[6 * 20 + 2] = from_host_float<T>(kNaN);
  at.evaluate(at.y.data());
  std::vector<T> y = at.y.host();
  for (std::size_t i = 0; i < y.size(); ++i)
    ASSERT_EQ(std::isnan(value(y[i])), i == 6 * 20 + 2) << i;
  at.train();
  y = at.y.host();
  for (std::size_t i = 0; i < y.size(); ++i) ASSERT_EQ(std::isnan(value(y[i])), i % 6 == 2) << i;
  at.backward();
  for (std::size_t c = 0; c < 6; ++c) EXPECT_EQ(std::isnan(at.dgamma.host()[c]), c == 2);
}

TYPED_TEST(KernelsBatchNorm, InfinityMeetsTheBounds) {
  using T = TypeParam;
  Operands<T> at({2, 8, false, true, 6});
  for (std::int64_t i = 0; i < 16; ++i)
    at.x.data()[i] = from_host_float<T>(i % 2 == 0 ? kInfinity : -kInfinity);
  at.evaluate(at.y.data());
  const std::vector<T> y = at.y.host();
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(value(y[i]), i % 2 == 0 ? 6 : 0);
}

// One block's work each, of a grid of 2^16 + 1.
TYPED_TEST(KernelsBatchNorm, ManyBlocks) {
  using T = TypeParam;
  const std::int64_t tile = 32 * kVec<T>, channels = 65537 * tile;
  DeviceArray<T> x(channels);
  DeviceArray<float> ones(channels);
  for (const std::int64_t block : {0, 40000, 65536}) {
    std::fill_n(x.data() + block * tile, tile, from_host_float<T>(3));
    std::fill_n(ones.data() + block * tile, tile, 1.0F);
  }
#if !defined(NF_TESTS_ON_GPU)
  const simt::emulator::Options before = simt::emulator::options();
  simt::emulator::set_options({.only = {0, 40000, -1}});
#endif
  batch_norm_forward_eval<T>(kStream, {.rows = 1, .channels = channels, .eps = 3}, x.data(),
                             nullptr, ones.data(), ones.data(), ones.data(), ones.data(), x.data());
#if !defined(NF_TESTS_ON_GPU)
  simt::emulator::set_options(before);
#else
  ones.host();
#endif
  for (const std::int64_t block : {0, 40000, 65536})
    for (std::int64_t i = 0; i < tile; ++i) ASSERT_EQ(value(x.data()[block * tile + i]), 2);
}

TEST(KernelsBatchNormWorkspace, IsBounded) {
  for (const std::int64_t rows : {1, 5000, 300000, 1 << 30})
    for (const std::int64_t channels : {1, 3, 64, 255, 513, 2048, 9999, 1 << 15})
      EXPECT_LE(batch_norm_workspace(rows, channels), (2 << 20) + 8 * channels)
          << rows << " " << channels;
  EXPECT_THROW(batch_norm_workspace(1, (1 << 27) + 1), KernelError);
}

TEST(KernelsBatchNormFold, FoldsIntoTheWeights) {
  struct Sizes {
    std::int64_t o, k, offset;
  };
  for (const auto& [o, k, offset] : {Sizes{1, 1, 0}, Sizes{10, 9, 0}, Sizes{33, 64, 0},
                                     Sizes{33, 64, 1}, Sizes{8, 1156, 0}, Sizes{17, 147, 3}}) {
    const std::vector<float> w = random_values<float>(o * k, 1), b = random_values<float>(o, 2);
    const std::vector<float> g = random_values<float>(o, 3, 0.5, 2), s = random_values<float>(o, 4);
    const std::vector<float> m = random_values<float>(o, 5), v = random_values<float>(o, 6, 0, 2);
    DeviceArray<float> gamma(g), beta(s), mean(m), var(v), weights(w, offset), bias(b);
    DeviceArray<float> folded(o * k, offset), folded_bias(o), alone(o);
    batch_norm_fold(kStream, gamma.data(), beta.data(), mean.data(), var.data(), 1e-3,
                    weights.data(), bias.data(), folded.data(), folded_bias.data(), o, k);
    batch_norm_fold(kStream, gamma.data(), beta.data(), mean.data(), var.data(), 1e-3,
                    weights.data(), nullptr, folded.data(), alone.data(), o, k);
    batch_norm_fold(kStream, gamma.data(), beta.data(), mean.data(), var.data(), 1e-3,
                    weights.data(), bias.data(), weights.data(), bias.data(), o, k);
    const std::vector<float> actual = folded.host(), biases = folded_bias.host(),
                             from_zero = alone.host();
    for (std::size_t c = 0; c < g.size(); ++c) {
      const double scale = g[c] / std::sqrt(v[c] + 1e-3);
      // eps, its sum with the variance, the root and the quotient; the first two count by half.
      const auto expect_bias = [&](float actual_bias, double before) {
        const double product = (before - m[c]) * scale, expected = product + s[c];
        ASSERT_NEAR(actual_bias, expected, kUnit * (4 * std::abs(product) + std::abs(expected)));
      };
      expect_bias(biases[c], b[c]);
      expect_bias(from_zero[c], 0);
      for (std::size_t i = c * static_cast<std::size_t>(k);
           i < (c + 1) * static_cast<std::size_t>(k); ++i)
        ASSERT_NEAR(actual[i], w[i] * scale, 4 * kUnit * std::abs(w[i] * scale));
    }
    EXPECT_EQ(weights.host(), actual);
    EXPECT_EQ(bias.host(), biases);
  }
}

#if !defined(NF_TESTS_ON_GPU)
namespace emulator = simt::emulator;

/// Restores the emulator's options.
template <typename T>
class KernelsBatchNormEmulated : public ::testing::Test {
 protected:
  void TearDown() override {
    emulator::set_options(before_);
    emulator::reset_behaviour();
  }

 private:
  emulator::Options before_ = emulator::options();
};
TYPED_TEST_SUITE(KernelsBatchNormEmulated, StorageTypes);

TYPED_TEST(KernelsBatchNormEmulated, OrderChangesNoBit) {
  Operands<TypeParam> one({1500, 20, true, true}), other({1500, 20, true, true});
  for (auto* at : {&one, &other}) {
    emulator::set_options({.seed = at == &one ? 11U : 12U});
    at->train();
    at->backward();
  }
  EXPECT_EQ(bits(one.y.host()), bits(other.y.host()));
  EXPECT_EQ(bits(one.dx.host()), bits(other.dx.host()));
  EXPECT_EQ(one.dgamma.host(), other.dgamma.host());
}

// The header's bytes, and hardly a sector half used, whether or not vectors divide the channels.
TYPED_TEST(KernelsBatchNormEmulated, MovesTheBytesItMust) {
  struct Expected {
    std::string name;
    double loads, stores;     // passes over the tensor
    std::int64_t parameters;  // of a channel, which each thread loads once
  };
  const std::vector<Expected> kernels{
      {"batch_norm_statistics", 1, 0, 1},       {"batch_norm_finish_statistics", 0, 0, 0},
      {"batch_norm_normalise", 2, 1, 4},        {"batch_norm_gradient_sums", 3, 0, 4},
      {"batch_norm_finish_gradients", 0, 0, 0}, {"batch_norm_input_gradient", 3, 2, 6}};
  for (const std::int64_t channels : {1, 3, 17, 64, 520}) {
    const std::int64_t rows = 60000 / channels;
    Operands<TypeParam> at({rows, channels, true, true});
    emulator::set_options({.races = false, .behaviour = true});
    emulator::reset_behaviour();
    at.train();
    at.backward();
    const std::vector<emulator::KernelBehaviour> seen = emulator::behaviour();
    ASSERT_EQ(seen.size(), kernels.size());
    const double tensor = static_cast<double>(rows * channels) * sizeof(TypeParam);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      const auto& [name, loads, stores, parameters] = kernels[i];
      ASSERT_EQ(seen[i].name, name);
      // Partials, and what is per channel, with sectors that two threads load.
      const auto others =
          static_cast<double>(2 * batch_norm_workspace(rows, channels) + 64 * channels);
      EXPECT_LE(static_cast<double>(seen[i].footprint_bytes), (loads + stores) * tensor + others)
          << name << ", " << channels << " channels";
      EXPECT_LE(static_cast<double>(seen[i].stores.bytes_moved()), 1.08 * stores * tensor + others)
          << name << ", " << channels << " channels";
      // Of the parameters' sectors half are used, at worst, and they come from the cache.
      const auto from_cache =
          static_cast<double>(8 * kVec<TypeParam> * parameters * seen[i].threads);
      EXPECT_LE(static_cast<double>(seen[i].loads.bytes_moved()),
                1.08 * loads * tensor + others + from_cache)
          << name << ", " << channels << " channels";
      EXPECT_LE(seen[i].shared_passes, 2 * seen[i].shared_requests) << name;  // of doubles: two
    }
  }
}
#endif

}  // namespace
}  // namespace nf::NF_TARGET::test
