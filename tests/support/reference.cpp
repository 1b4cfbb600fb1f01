#include "tests/support/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/philox.h"

namespace nf::test::reference {
namespace {

/// Row-major offset of an index in a four-dimensional array.
struct Index4 {
  std::int64_t d1, d2, d3;
  std::size_t operator()(std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t l) const {
    return static_cast<std::size_t>(((i * d1 + j) * d2 + k) * d3 + l);
  }
};

Values zeros(std::int64_t n) { return Values(static_cast<std::size_t>(n), 0.0); }
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Calls visit(x, w, y) with the three offsets of every product that the convolution sums.
template <typename Visit>
void each_product(const Conv2dCase& p, Visit visit) {
  const Index4 xi{p.h, p.w, p.c}, wi{p.kh, p.kw, p.c / p.groups};
  const Index4 yi{p.out_h(), p.out_w(), p.o};
  const std::int64_t in_group = p.c / p.groups, out_group = p.o / p.groups;
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t oy = 0; oy < p.out_h(); ++oy)
      for (std::int64_t ox = 0; ox < p.out_w(); ++ox)
        for (std::int64_t o = 0; o < p.o; ++o)
          for (std::int64_t ky = 0; ky < p.kh; ++ky)
            for (std::int64_t kx = 0; kx < p.kw; ++kx) {
              const std::int64_t y = oy * p.stride + ky - p.padding;
              const std::int64_t x = ox * p.stride + kx - p.padding;
              if (y < 0 || y >= p.h || x < 0 || x >= p.w) continue;
              for (std::int64_t c = 0; c < in_group; ++c)
                visit(xi(n, y, x, (o / out_group) * in_group + c), wi(o, ky, kx, c),
                      yi(n, oy, ox, o));
            }
}

/// Calls visit(x, y) with the offsets of every output and of each input in its window.
template <typename Visit>
void each_in_window(const Pool2dCase& p, Visit visit) {
  const Index4 xi{p.h, p.w, p.c}, yi{p.out_h(), p.out_w(), p.c};
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t oy = 0; oy < p.out_h(); ++oy)
      for (std::int64_t ox = 0; ox < p.out_w(); ++ox)
        for (std::int64_t c = 0; c < p.c; ++c)
          for (std::int64_t ky = 0; ky < p.kernel; ++ky)
            for (std::int64_t kx = 0; kx < p.kernel; ++kx) {
              const std::int64_t y = oy * p.stride + ky - p.padding;
              const std::int64_t x = ox * p.stride + kx - p.padding;
              if (y >= 0 && y < p.h && x >= 0 && x < p.w) visit(xi(n, y, x, c), yi(n, oy, ox, c));
            }
}

/// Number of pixels that each output averages over.
Values window_sizes(const Pool2dCase& p, bool count_include_pad) {
  Values sizes = zeros(p.n * p.out_h() * p.out_w() * p.c);
  each_in_window(p, [&](std::size_t, std::size_t y) { sizes[y] += 1; });
  if (count_include_pad)
    std::fill(sizes.begin(), sizes.end(), static_cast<double>(p.kernel * p.kernel));
  return sizes;
}

/// For each output the offset of its first largest input.
std::vector<std::size_t> arg_maxima(const Pool2dCase& p, const Values& x) {
  constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> best(at(p.n * p.out_h() * p.out_w() * p.c), kNone);
  each_in_window(p, [&](std::size_t i, std::size_t y) {
    if (best[y] == kNone || x[i] > x[best[y]]) best[y] = i;
  });
  return best;
}

/// Calls visit(x, y, weight) for every input that an output cell averages.
template <typename Visit>
void each_in_cell(const AdaptivePoolCase& p, Visit visit) {
  const Index4 xi{p.h, p.w, p.c}, yi{p.out_h, p.out_w, p.c};
  const auto first = [](std::int64_t i, std::int64_t in, std::int64_t out) { return i * in / out; };
  const auto end = [](std::int64_t i, std::int64_t in, std::int64_t out) {
    return ((i + 1) * in + out - 1) / out;
  };
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t oy = 0; oy < p.out_h; ++oy)
      for (std::int64_t ox = 0; ox < p.out_w; ++ox) {
        const std::int64_t y0 = first(oy, p.h, p.out_h), y1 = end(oy, p.h, p.out_h);
        const std::int64_t x0 = first(ox, p.w, p.out_w), x1 = end(ox, p.w, p.out_w);
        const double weight = 1.0 / static_cast<double>((y1 - y0) * (x1 - x0));
        for (std::int64_t y = y0; y < y1; ++y)
          for (std::int64_t x = x0; x < x1; ++x)
            for (std::int64_t c = 0; c < p.c; ++c) visit(xi(n, y, x, c), yi(n, oy, ox, c), weight);
      }
}

/// Softmax probabilities of one row of logits.
Values probabilities(const double* logits, std::int64_t classes) {
  const double largest = *std::max_element(logits, logits + classes);
  Values result(at(classes));
  double sum = 0;
  for (std::size_t c = 0; c < result.size(); ++c) sum += result[c] = std::exp(logits[c] - largest);
  for (double& value : result) value /= sum;
  return result;
}

double target(const CrossEntropyCase& p, std::int64_t c, std::int32_t label) {
  return (c == label ? 1 - p.smoothing : 0.0) + p.smoothing / static_cast<double>(p.c);
}

}  // namespace

Values conv2d(const Conv2dCase& p, const Values& x, const Values& w, const Values& bias) {
  Values y = zeros(p.n * p.out_h() * p.out_w() * p.o);
  for (std::size_t i = 0; i < y.size() && !bias.empty(); ++i) y[i] = bias[i % at(p.o)];
  each_product(p, [&](std::size_t xi, std::size_t wi, std::size_t yi) { y[yi] += x[xi] * w[wi]; });
  return y;
}

AffineGradients conv2d_backward(const Conv2dCase& p, const Values& x, const Values& w,
                                const Values& dy) {
  AffineGradients d{Values(x.size(), 0.0), Values(w.size(), 0.0), zeros(p.o)};
  each_product(p, [&](std::size_t xi, std::size_t wi, std::size_t yi) {
    d.x[xi] += dy[yi] * w[wi];
    d.w[wi] += dy[yi] * x[xi];
  });
  for (std::size_t i = 0; i < dy.size(); ++i) d.bias[i % at(p.o)] += dy[i];
  return d;
}

Values linear(const LinearCase& p, const Values& x, const Values& w, const Values& bias) {
  Values y = zeros(p.n * p.o);
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t o = 0; o < p.o; ++o) {
      double sum = bias.empty() ? 0.0 : bias[at(o)];
      for (std::int64_t i = 0; i < p.i; ++i) sum += x[at(n * p.i + i)] * w[at(o * p.i + i)];
      y[at(n * p.o + o)] = sum;
    }
  return y;
}

AffineGradients linear_backward(const LinearCase& p, const Values& x, const Values& w,
                                const Values& dy) {
  AffineGradients d{Values(x.size(), 0.0), Values(w.size(), 0.0), zeros(p.o)};
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t o = 0; o < p.o; ++o) {
      const double g = dy[at(n * p.o + o)];
      d.bias[at(o)] += g;
      for (std::int64_t i = 0; i < p.i; ++i) {
        d.x[at(n * p.i + i)] += g * w[at(o * p.i + i)];
        d.w[at(o * p.i + i)] += g * x[at(n * p.i + i)];
      }
    }
  return d;
}

double activate(Activation activation, double z) {
  if (activation == Activation::none) return z;
  return std::min(std::max(z, 0.0), activation == Activation::relu6 ? 6.0 : INFINITY);
}

double activation_slope(Activation activation, double z) {
  if (activation == Activation::none) return 1;
  return z > 0 && (activation == Activation::relu || z < 6) ? 1 : 0;
}

BatchNormResult batch_norm_train(const BatchNormCase& p, const Values& x, const Values& residual,
                                 const Values& gamma, const Values& beta,
                                 const Values& running_mean, const Values& running_var,
                                 double momentum) {
  const std::size_t channels = gamma.size(), rows = x.size() / channels;
  const auto count = static_cast<double>(rows);
  BatchNormResult r{Values(x.size()),      Values(x.size()), Values(channels, 0.0),
                    Values(channels, 0.0), running_mean,     running_var};
  for (std::size_t i = 0; i < x.size(); ++i) r.mean[i % channels] += x[i] / count;
  for (std::size_t i = 0; i < x.size(); ++i)
    r.variance[i % channels] += std::pow(x[i] - r.mean[i % channels], 2) / count;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    const double hat = (x[i] - r.mean[c]) / std::sqrt(r.variance[c] + kBatchNormEps);
    r.before_activation[i] = gamma[c] * hat + beta[c] + (residual.empty() ? 0.0 : residual[i]);
    r.y[i] = activate(p.activation, r.before_activation[i]);
  }
  // A single row says nothing of the variance, and moves neither.
  if (rows == 1) return r;
  for (std::size_t c = 0; c < channels; ++c) {
    const double unbiased = r.variance[c] * count / (count - 1);
    r.running_mean[c] = (1 - momentum) * running_mean[c] + momentum * r.mean[c];
    r.running_var[c] = (1 - momentum) * running_var[c] + momentum * unbiased;
  }
  return r;
}

Values batch_norm_eval(const BatchNormCase& p, const Values& x, const Values& residual,
                       const Values& gamma, const Values& beta, const Values& running_mean,
                       const Values& running_var) {
  Values y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % gamma.size();
    const double hat = (x[i] - running_mean[c]) / std::sqrt(running_var[c] + kBatchNormEps);
    y[i] =
        activate(p.activation, gamma[c] * hat + beta[c] + (residual.empty() ? 0.0 : residual[i]));
  }
  return y;
}

BatchNormGradients batch_norm_backward(const BatchNormCase& p, const Values& x,
                                       const Values& residual, const Values& gamma,
                                       const Values& beta, const Values& dy,
                                       const std::function<double(double)>& stored) {
  const std::size_t channels = gamma.size();
  const auto count = static_cast<double>(x.size() / channels);
  const Values unused(channels, 0.0);
  const BatchNormResult f = batch_norm_train(p, x, residual, gamma, beta, unused, unused, 0);
  BatchNormGradients d{Values(x.size()), Values(x.size()), Values(channels, 0.0),
                       Values(channels, 0.0)};
  const auto hat = [&](std::size_t i) {
    const std::size_t c = i % channels;
    return (x[i] - f.mean[c]) / std::sqrt(f.variance[c] + kBatchNormEps);
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double z = f.before_activation[i];
    d.residual[i] = dy[i] * activation_slope(p.activation, stored ? stored(z) : z);
    d.gamma[i % channels] += d.residual[i] * hat(i);
    d.beta[i % channels] += d.residual[i];
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    d.x[i] = gamma[c] / std::sqrt(f.variance[c] + kBatchNormEps) *
             (d.residual[i] - d.beta[c] / count - hat(i) * d.gamma[c] / count);
  }
  if (residual.empty()) d.residual.clear();
  return d;
}

Values max_pool(const Pool2dCase& p, const Values& x) {
  Values y;
  for (const std::size_t i : arg_maxima(p, x)) y.push_back(x[i]);
  return y;
}

Values max_pool_backward(const Pool2dCase& p, const Values& x, const Values& dy) {
  Values dx(x.size(), 0.0);
  const std::vector<std::size_t> best = arg_maxima(p, x);
  for (std::size_t i = 0; i < dy.size(); ++i) dx[best[i]] += dy[i];
  return dx;
}

Values avg_pool(const Pool2dCase& p, const Values& x, bool count_include_pad) {
  const Values sizes = window_sizes(p, count_include_pad);
  Values y(sizes.size(), 0.0);
  each_in_window(p, [&](std::size_t xi, std::size_t yi) { y[yi] += x[xi]; });
  for (std::size_t i = 0; i < y.size(); ++i) y[i] /= sizes[i];
  return y;
}

Values avg_pool_backward(const Pool2dCase& p, const Values& dy, bool count_include_pad) {
  const Values sizes = window_sizes(p, count_include_pad);
  Values dx = zeros(p.n * p.h * p.w * p.c);
  each_in_window(p, [&](std::size_t xi, std::size_t yi) { dx[xi] += dy[yi] / sizes[yi]; });
  return dx;
}

Values adaptive_avg_pool(const AdaptivePoolCase& p, const Values& x) {
  Values y = zeros(p.n * p.out_h * p.out_w * p.c);
  each_in_cell(p, [&](std::size_t xi, std::size_t yi, double weight) { y[yi] += weight * x[xi]; });
  return y;
}

Values adaptive_avg_pool_backward(const AdaptivePoolCase& p, const Values& dy) {
  Values dx = zeros(p.n * p.h * p.w * p.c);
  each_in_cell(p,
               [&](std::size_t xi, std::size_t yi, double weight) { dx[xi] += weight * dy[yi]; });
  return dx;
}

Values dropout(const DropoutCase& p, const Values& x) {
  Values y(x.size(), 0.0);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (uniform01(philox(p.key, i / 4, 0).v[i % 4]) >= p.p) y[i] = x[i] / (1 - p.p);
  return y;
}

CrossEntropyResult softmax_cross_entropy(const CrossEntropyCase& p, const Values& logits,
                                         const std::vector<std::int32_t>& labels) {
  CrossEntropyResult r;
  for (std::int64_t n = 0; n < p.n; ++n) {
    const double* row = logits.data() + n * p.c;
    const double largest = *std::max_element(row, row + p.c);
    double sum = 0;
    for (std::int64_t c = 0; c < p.c; ++c) sum += std::exp(row[c] - largest);
    for (std::int64_t c = 0; c < p.c; ++c)
      r.loss += target(p, c, labels[at(n)]) * (largest + std::log(sum) - row[c]);
    r.correct += std::max_element(row, row + p.c) - row == labels[at(n)] ? 1 : 0;
  }
  r.loss /= static_cast<double>(p.n);
  return r;
}

Values softmax_cross_entropy_backward(const CrossEntropyCase& p, const Values& logits,
                                      const std::vector<std::int32_t>& labels, double dloss) {
  Values d(logits.size());
  for (std::int64_t n = 0; n < p.n; ++n) {
    const Values prob = probabilities(logits.data() + n * p.c, p.c);
    for (std::int64_t c = 0; c < p.c; ++c)
      d[at(n * p.c + c)] =
          dloss * (prob[at(c)] - target(p, c, labels[at(n)])) / static_cast<double>(p.n);
  }
  return d;
}

}  // namespace nf::test::reference
