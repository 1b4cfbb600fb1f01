// What the operators should compute: plain loops in double precision, written from the formulas
// and sharing no code with the engine. Images are (N, H, W, C), filters (O, KH, KW, C / groups).
#pragma once

#include <functional>
#include <vector>

#include "tests/support/op_cases.h"

namespace nf::test::reference {

using Values = std::vector<double>;

/// `bias` (O) may be empty.
Values conv2d(const Conv2dCase& p, const Values& x, const Values& w, const Values& bias);
struct AffineGradients {
  Values x, w, bias;
};
AffineGradients conv2d_backward(const Conv2dCase& p, const Values& x, const Values& w,
                                const Values& dy);

/// x (N, I), w (O, I), bias (O) or empty.
Values linear(const LinearCase& p, const Values& x, const Values& w, const Values& bias);
AffineGradients linear_backward(const LinearCase& p, const Values& x, const Values& w,
                                const Values& dy);

double activate(Activation activation, double z);
/// Derivative of the activation; 0 at its kinks.
double activation_slope(Activation activation, double z);

inline constexpr double kBatchNormEps = 1e-5;
struct BatchNormResult {
  Values y;
  Values before_activation;
  Values mean, variance;             // of the batch, the variance biased
  Values running_mean, running_var;  // after the update
};
/// Batch statistics. `residual` may be empty.
BatchNormResult batch_norm_train(const BatchNormCase& p, const Values& x, const Values& residual,
                                 const Values& gamma, const Values& beta,
                                 const Values& running_mean, const Values& running_var,
                                 double momentum);
/// Running statistics.
Values batch_norm_eval(const BatchNormCase& p, const Values& x, const Values& residual,
                       const Values& gamma, const Values& beta, const Values& running_mean,
                       const Values& running_var);
struct BatchNormGradients {
  Values x, residual, gamma, beta;
};
/// The activation lets pass by its output as `stored` gives it, where that is given.
BatchNormGradients batch_norm_backward(const BatchNormCase& p, const Values& x,
                                       const Values& residual, const Values& gamma,
                                       const Values& beta, const Values& dy,
                                       const std::function<double(double)>& stored = {});

Values max_pool(const Pool2dCase& p, const Values& x);
Values max_pool_backward(const Pool2dCase& p, const Values& x, const Values& dy);
Values avg_pool(const Pool2dCase& p, const Values& x, bool count_include_pad);
Values avg_pool_backward(const Pool2dCase& p, const Values& dy, bool count_include_pad);
Values adaptive_avg_pool(const AdaptivePoolCase& p, const Values& x);
Values adaptive_avg_pool_backward(const AdaptivePoolCase& p, const Values& dy);

/// Its own backward.
Values dropout(const DropoutCase& p, const Values& x);

struct CrossEntropyResult {
  double loss = 0;
  std::int64_t correct = 0;
};
CrossEntropyResult softmax_cross_entropy(const CrossEntropyCase& p, const Values& logits,
                                         const std::vector<std::int32_t>& labels);
Values softmax_cross_entropy_backward(const CrossEntropyCase& p, const Values& logits,
                                      const std::vector<std::int32_t>& labels, double dloss);

}  // namespace nf::test::reference
