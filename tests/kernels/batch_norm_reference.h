// Batch norm in double, for its kernels' tests: the operands of one case, and what is expected of
// the results. They are compared with what follows from the statistics as they were stored, so that
// each bound holds the roundings of one step alone.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/batch_norm.h"
#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test::batch_norm {

inline constexpr double kUnit = 0x1p-24;  // what one rounding to float may change, relative
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  std::int64_t rows, channels;
  bool residual = false;
  bool activate = false;
  float bound = kInfinity;
};

inline BatchNormOptions options_of(const Case& c) {
  return {.rows = c.rows, .channels = c.channels, .activate = c.activate, .bound = c.bound};
}

inline std::string text(const Case& c) {
  return std::to_string(c.rows) + "x" + std::to_string(c.channels) +
         (c.residual ? ", residual" : "") + (c.activate ? ", bound " : "") +
         (c.activate ? std::to_string(c.bound) : "");
}

/// Tails and periods of every kind: channels that vectors divide and that they don't, several tiles
/// of columns, fewer elements than a vector, several splits, splits and rows that end early.
inline std::vector<Case> cases() {
  return {{1, 1},
          {2, 3, true, true},
          {1, 7, false, true},
          {5, 2, true},
          {300, 1, false, true},
          {257, 3, true, true, 6},
          {33, 17, false, true, 6},
          {64, 16, true, true},
          {130, 64},
          {40, 33, true, true, 6},
          {19, 6, false, true},
          {37, 130, true, true},
          {3, 600, true, true, 6},
          {90, 264, false, true},
          {1000, 8, true},
          {11, 1050, false, true, 6},
          {9000, 4, false, true},
          {1, 40, true, true}};
}

template <typename T>
double value(T element) {
  return to_host_float(element);
}

/// Rounding to T, subnormals of f16 included.
template <typename T>
double rounding(double value) {
  return kRounding<T> * std::abs(value) + (sizeof(T) == 2 ? 0x1p-25 : 0);
}

/// All operands of one case.
template <typename T>
struct Operands {
  Case c;
  DeviceArray<T> x, residual, dy, y, dx, dresidual;
  DeviceArray<float> gamma, beta, running_mean, running_var, mean, invstd, dgamma, dbeta;
  DeviceArray<std::byte> workspace;

  explicit Operands(const Case& c, float low = -2, float high = 3)
      : c(c),
        x(random_values<T>(c.rows * c.channels, 1, low, high)),
        residual(random_values<T>(c.rows * c.channels, 2)),
        dy(random_values<T>(c.rows * c.channels, 3)),
        y(c.rows * c.channels),
        dx(c.rows * c.channels),
        dresidual(c.rows * c.channels),
        gamma(random_values<float>(c.channels, 4, 0.5, 4)),
        beta(random_values<float>(c.channels, 5, -1, 2)),
        running_mean(random_values<float>(c.channels, 6)),
        running_var(random_values<float>(c.channels, 7, 0.5, 2)),
        mean(c.channels),
        invstd(c.channels),
        dgamma(random_values<float>(c.channels, 8)),
        dbeta(random_values<float>(c.channels, 9)),
        workspace(batch_norm_workspace(c.rows, c.channels)) {}

  const T* added() { return c.residual ? residual.data() : nullptr; }
  void train() {
    batch_norm_forward_train<T>(kStream, options_of(c), x.data(), added(), gamma.data(),
                                beta.data(), running_mean.data(), running_var.data(), y.data(),
                                mean.data(), invstd.data(), workspace.data());
  }
  void evaluate(T* out) {
    batch_norm_forward_eval<T>(kStream, options_of(c), x.data(), added(), gamma.data(), beta.data(),
                               running_mean.data(), running_var.data(), out);
  }
  void backward(const T* saved_y, T* to_dx, T* to_dresidual, bool accumulate = false) {
    batch_norm_backward<T>(kStream, options_of(c), x.data(), saved_y, dy.data(), gamma.data(),
                           beta.data(), mean.data(), invstd.data(), to_dx, to_dresidual,
                           dgamma.data(), dbeta.data(), accumulate, workspace.data());
  }
  void backward(bool accumulate = false) {
    backward(c.residual && c.activate ? y.data() : nullptr, dx.data(),
             c.residual ? dresidual.data() : nullptr, accumulate);
  }
};

struct Moments {
  double mean, squares;  // squared deviations
  double range;          // of what is summed: the largest distance from the first row
};

template <typename T>
Moments moments(const std::vector<T>& x, std::int64_t channels, std::int64_t channel) {
  const auto first = static_cast<std::size_t>(channel), step = static_cast<std::size_t>(channels);
  Moments m{0, 0, 0};
  for (std::size_t i = first; i < x.size(); i += step) m.mean += value(x[i]);
  m.mean /= static_cast<double>(x.size() / step);
  for (std::size_t i = first; i < x.size(); i += step) {
    m.squares += (value(x[i]) - m.mean) * (value(x[i]) - m.mean);
    m.range = std::max(m.range, std::abs(value(x[i]) - value(x[first])));
  }
  return m;
}

/// What `train` stored, against sums in double; the running statistics were `before`.
template <typename T>
void expect_statistics(Operands<T>& at, const std::vector<float>& mean_before,
                       const std::vector<float>& var_before) {
  const std::vector<T> x = at.x.host();
  const std::vector<float> mean = at.mean.host(), invstd = at.invstd.host();
  const std::vector<float> running_mean = at.running_mean.host(),
                           running_var = at.running_var.host();
  const auto rows = static_cast<double>(at.c.rows);
  for (std::size_t c = 0; c < mean.size(); ++c) {
    const Moments m = moments(x, at.c.channels, static_cast<std::int64_t>(c));
    const double var = m.squares / rows, deviation = std::sqrt(var);
    // A deviation is rounded twice, and again in a few sums that average the errors.
    const double mean_error = kUnit * (std::abs(m.mean) + 8 * m.range);
    ASSERT_NEAR(mean[c], m.mean, mean_error) << text(at.c) << ", channel " << c;
    const double var_error = kUnit * (8 * m.range * deviation + 8 * var);
    const double expected = 1 / std::sqrt(var + 1e-5);
    ASSERT_NEAR(invstd[c], expected, expected * (kUnit + var_error / 2 / (var + 1e-5)))
        << text(at.c) << ", channel " << c;
    if (at.c.rows == 1) {
      ASSERT_EQ(running_mean[c], mean_before[c]);
      ASSERT_EQ(running_var[c], var_before[c]);
      continue;
    }
    const double new_mean = 0.9 * mean_before[c] + 0.1 * m.mean;
    const double new_var = 0.9 * var_before[c] + 0.1 * m.squares / (rows - 1);
    ASSERT_NEAR(running_mean[c], new_mean, kUnit * std::abs(new_mean) + 0.1 * mean_error);
    ASSERT_NEAR(running_var[c], new_var, kUnit * new_var + 0.1 * var_error * rows / (rows - 1));
  }
}

/// y against the operator in double with float statistics. `scale_error`: relative, of
/// gamma * invstd.
template <typename T>
void expect_output(Operands<T>& at, const std::vector<float>& means,
                   const std::vector<double>& scales, double scale_error, const std::vector<T>& y) {
  const std::vector<T> x = at.x.host(), residual = at.residual.host();
  const std::vector<float> beta = at.beta.host();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % means.size();
    const double deviation = (value(x[i]) - means[c]) * scales[c];
    double sum = deviation + beta[c];
    double error = std::abs(deviation) * (kUnit + scale_error) + std::abs(sum) * kUnit;
    if (at.c.residual) {
      sum += value(residual[i]);
      error += std::abs(sum) * kUnit;
    }
    if (at.c.activate) sum = std::clamp(sum, 0.0, double{at.c.bound});
    ASSERT_NEAR(value(y[i]), sum, error + rounding<T>(sum)) << text(at.c) << ", element " << i;
  }
}

template <typename T>
std::vector<double> training_scales(Operands<T>& at) {
  const std::vector<float> gamma = at.gamma.host(), invstd = at.invstd.host();
  std::vector<double> scales(gamma.size());
  for (std::size_t c = 0; c < gamma.size(); ++c) scales[c] = double{gamma[c]} * invstd[c];
  return scales;
}

template <typename T>
std::vector<double> running_scales(Operands<T>& at) {
  const std::vector<float> gamma = at.gamma.host(), var = at.running_var.host();
  std::vector<double> scales(gamma.size());
  for (std::size_t c = 0; c < gamma.size(); ++c) scales[c] = gamma[c] / std::sqrt(var[c] + 1e-5);
  return scales;
}

/// Gradients against the formulas in double, from stored statistics and the stored output's mask.
template <typename T>
void expect_gradients(Operands<T>& at, const std::vector<float>& dgamma_before,
                      const std::vector<float>& dbeta_before) {
  const std::vector<T> x = at.x.host(), y = at.y.host(), dy = at.dy.host(), dx = at.dx.host();
  const std::vector<T> dresidual = at.dresidual.host();
  const std::vector<float> gamma = at.gamma.host(), mean = at.mean.host(),
                           invstd = at.invstd.host();
  const std::vector<float> dgamma = at.dgamma.host(), dbeta = at.dbeta.host();
  const std::size_t channels = gamma.size();
  const auto rows = static_cast<double>(at.c.rows);
  // Additions one behind another: of a thread's rows, by twos, and of eight halvings of a block.
  const double depth = 24;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto masked = [&](std::size_t i) {
      const double output = value(y[i]);
      return at.c.activate && !(output > 0 && output < at.c.bound) ? 0.0 : value(dy[i]);
    };
    double sum = 0, product = 0, all = 0, all_products = 0;
    for (std::size_t i = c; i < x.size(); i += channels) {
      const double term = masked(i) * (value(x[i]) - mean[c]);
      sum += masked(i);
      product += term;
      all += std::abs(masked(i));
      all_products += std::abs(term);
    }
    const double sum_error = depth * kUnit * all, product_error = depth * kUnit * all_products;
    const double new_gamma = dgamma_before[c] + product * invstd[c];
    const double new_beta = dbeta_before[c] + sum;
    ASSERT_NEAR(
        dgamma[c], new_gamma,
        product_error * invstd[c] + kUnit * (std::abs(product * invstd[c]) + std::abs(new_gamma)))
        << text(at.c) << ", channel " << c;
    ASSERT_NEAR(dbeta[c], new_beta, sum_error + kUnit * (std::abs(sum) + std::abs(new_beta)))
        << text(at.c) << ", channel " << c;

    const double scale = double{gamma[c]} * invstd[c], curvature = double{invstd[c]} * invstd[c];
    for (std::size_t i = c; i < x.size(); i += channels) {
      const double deviation = value(x[i]) - mean[c], g = masked(i);
      const double by_sum = scale * sum / rows;
      const double by_product = scale * deviation * curvature * product / rows;
      const double expected = scale * g - by_sum - by_product;
      const double error =
          kUnit * (2 * std::abs(scale * g) + std::abs(by_sum) + 3 * std::abs(by_product) +
                   std::abs(scale * g - by_sum) + std::abs(expected)) +
          scale / rows * (sum_error + std::abs(deviation) * curvature * product_error);
      ASSERT_NEAR(value(dx[i]), expected, error + rounding<T>(expected))
          << text(at.c) << ", element " << i;
      if (at.c.residual) {
        ASSERT_EQ(value(dresidual[i]), g) << text(at.c) << ", element " << i;
      }
    }
  }
}

template <typename T>
std::vector<std::uint32_t> bits(const std::vector<T>& values) {
  std::vector<std::uint32_t> out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if constexpr (sizeof(T) == 4)
      std::memcpy(&out[i], &values[i], 4);
    else
      out[i] = values[i].bits;
  }
  return out;
}

}  // namespace nf::NF_TARGET::test::batch_norm
