#include "kernels/softmax_cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test {
namespace {

using std::int64_t;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kFloat = 0x1p-24;  // a rounding to f32
/// Half of the smallest number that T stores, or more.
template <typename T>
constexpr double kTiny = std::is_same_v<T, f16> ? 0x1p-25 : 0x1p-134;

/// Roundings to f32 that an exponential's term of a sum over c goes through: 4 of expf, then 32
/// elements of a thread, 5 joins of lanes, 8 of warps. Also holds for a sum of differences.
double depth(int64_t c) { return 4 + std::max(32.0, static_cast<double>(c) / 256 + 8) + 5 + 8; }

struct Expected {
  double loss = 0, loss_error = 0;
  std::int32_t correct = 0;
  std::vector<double> gradient, gradient_error;  // of the mean loss, times dloss
};

template <typename T>
Expected reference(const std::vector<T>& logits, const std::vector<std::int32_t>& labels, int64_t c,
                   double smoothing, double dloss) {
  Expected expected;
  const auto n = static_cast<int64_t>(labels.size());
  for (int64_t row = 0; row < n; ++row) {
    std::vector<double> x;
    for (int64_t i = 0; i < c; ++i)
      x.push_back(to_host_float(logits[static_cast<std::size_t>(row * c + i)]));
    const int64_t label = labels[static_cast<std::size_t>(row)];
    const bool known = label >= 0 && label < c;
    double max = -kInfinity, sum = 0, shift = 0;
    int64_t first = -1;
    for (int64_t i = 0; i < c; ++i)
      if (x[static_cast<std::size_t>(i)] > max) max = x[static_cast<std::size_t>(first = i)];
    for (const double value : x) sum += std::exp(value - max), shift += value - max;
    double picked = kNaN;
    if (known) picked = (1 - smoothing) * (x[static_cast<std::size_t>(label)] - max);
    if (smoothing > 0) picked += smoothing * shift / static_cast<double>(c);
    expected.loss += (std::log(sum) - picked) / static_cast<double>(n);
    // The sum's terms have, weighed by themselves, a mean distance to the largest of at most log c.
    const double log_c = std::log(static_cast<double>(c)), sum_error = log_c + depth(c);
    double error = sum_error + 2 * std::log(sum);
    if (smoothing > 0) error -= smoothing * shift / static_cast<double>(c) * (depth(c) + 1);
    expected.loss_error += kFloat * error / static_cast<double>(n);
    if (known && first == label && !std::isnan(sum)) ++expected.correct;
    const double scale = dloss / static_cast<double>(n);
    for (int64_t i = 0; i < c; ++i) {
      const double distance = max - x[static_cast<std::size_t>(i)];
      const double p = std::exp(-distance) / sum;
      const double target = smoothing / static_cast<double>(c) + (i == label ? 1 - smoothing : 0);
      const double of_p = p > 0 ? p * (distance + 4 + sum_error + 2) : 0;
      expected.gradient.push_back(known ? scale * (p - target) : kNaN);
      expected.gradient_error.push_back(std::abs(scale) * kFloat *
                                        (of_p + 2 * target + 3 * std::abs(p - target)));
    }
  }
  expected.loss_error += kFloat * std::abs(expected.loss);
  return expected;
}

void expect_near(double actual, double expected, double error, const std::string& what) {
  if (std::isnan(expected))
    EXPECT_TRUE(std::isnan(actual)) << what << ": " << actual;
  else if (std::isinf(expected))
    EXPECT_EQ(actual, expected) << what;
  else
    EXPECT_NEAR(actual, expected, error) << what;
}

template <typename T>
void expect_gradient(const std::vector<T>& actual, const Expected& expected,
                     const std::vector<T>* old = nullptr) {
  for (std::size_t i = 0; i < actual.size(); ++i) {
    double value = expected.gradient[i], error = expected.gradient_error[i];
    if (old != nullptr) {
      value += to_host_float((*old)[i]);
      error += kFloat * std::abs(value);
    }
    error += kRounding<T> * (std::abs(value) + error) + kTiny<T>;
    expect_near(to_host_float(actual[i]), value, error, "gradient " + std::to_string(i));
    if (::testing::Test::HasFailure()) return;
  }
}

template <typename T>
struct Problem {
  int64_t c;
  std::vector<T> logits;
  std::vector<std::int32_t> labels;
  double smoothing = 0;
  int64_t logits_offset = 0, dlogits_offset = 0;

  int64_t n() const { return static_cast<int64_t>(labels.size()); }
};

/// All launchers, in place too.
template <typename T>
void expect_all(const Problem<T>& p) {
  SCOPED_TRACE(std::to_string(p.n()) + "x" + std::to_string(p.c) + ", smoothing " +
               std::to_string(p.smoothing) + ", offsets " + std::to_string(p.logits_offset) + " " +
               std::to_string(p.dlogits_offset));
  DeviceArray<T> logits(p.logits, p.logits_offset);
  DeviceArray<std::int32_t> labels(p.labels, 1);
  DeviceArray<float> loss(1, 1), dloss(std::vector<float>{-3.0F}, 1);
  DeviceArray<std::int32_t> correct(1, 1);
  const int64_t bytes = softmax_cross_entropy_workspace(p.n(), p.c);
  EXPECT_LE(bytes, 16 << 10);
  DeviceArray<std::uint8_t> workspace(bytes, 8);
  const auto expect_loss = [&](const Expected& expected) {
    expect_near(loss.host()[0], expected.loss, expected.loss_error, "loss");
    EXPECT_EQ(correct.host()[0], expected.correct);
  };
  const Expected of_mean = reference(p.logits, p.labels, p.c, p.smoothing, 1);
  softmax_cross_entropy_forward(kStream, logits.data(), labels.data(), p.n(), p.c, p.smoothing,
                                loss.data(), correct.data(), workspace.data());
  expect_loss(of_mean);

  const Expected scaled = reference(p.logits, p.labels, p.c, p.smoothing, -3);
  const auto old = random_values<T>(p.n() * p.c, 9);
  DeviceArray<T> dlogits(old, p.dlogits_offset);
  softmax_cross_entropy_backward(kStream, logits.data(), labels.data(), p.n(), p.c, p.smoothing,
                                 dloss.data(), dlogits.data(), true);
  expect_gradient(dlogits.host(), scaled, &old);
  softmax_cross_entropy_backward(kStream, logits.data(), labels.data(), p.n(), p.c, p.smoothing,
                                 dloss.data(), dlogits.data(), false);
  expect_gradient(dlogits.host(), scaled);

  DeviceArray<T> in_place(p.logits, p.logits_offset);
  softmax_cross_entropy_backward(kStream, in_place.data(), labels.data(), p.n(), p.c, p.smoothing,
                                 dloss.data(), in_place.data(), false);
  expect_gradient(in_place.host(), scaled);

  *loss.data() = -1;
  *correct.data() = -1;
  softmax_cross_entropy_forward_backward(kStream, logits.data(), labels.data(), p.n(), p.c,
                                         p.smoothing, loss.data(), correct.data(), dlogits.data(),
                                         workspace.data());
  expect_loss(of_mean);
  expect_gradient(dlogits.host(), of_mean);
  // In place, and with the same bits.
  softmax_cross_entropy_forward_backward(kStream, logits.data(), labels.data(), p.n(), p.c,
                                         p.smoothing, loss.data(), correct.data(), logits.data(),
                                         workspace.data());
  expect_loss(of_mean);
  if (p.logits_offset == p.dlogits_offset) {
    const std::vector<T> a = dlogits.host(), b = logits.host();
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(T)), 0);
  } else {
    expect_gradient(logits.host(), of_mean);
  }
}

std::vector<std::int32_t> random_labels(int64_t n, int64_t c, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(n));
  for (std::int32_t& label : labels)
    label = static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(c));
  return labels;
}

/// Rows whose every third label is that of a largest logit, so that many are hit.
template <typename T>
Problem<T> random_problem(int64_t n, int64_t c, float range, double smoothing) {
  Problem<T> p{.c = c,
               .logits = random_values<T>(n * c, 1, -range, range),
               .labels = random_labels(n, c, 2),
               .smoothing = smoothing};
  for (int64_t row = 0; row < n; row += 3)
    p.logits[static_cast<std::size_t>(row * c + p.labels[static_cast<std::size_t>(row)])] =
        from_host_float<T>(range);
  return p;
}

template <typename T>
class KernelsSoftmaxCrossEntropy : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsSoftmaxCrossEntropy, StorageTypes);

TYPED_TEST(KernelsSoftmaxCrossEntropy, Shapes) {
  // One lane to a row, several, a warp with one access or four each, a block, one that loops.
  constexpr int64_t kShapes[][2] = {{1, 1},   {300, 1}, {1, 2},    {33, 3},   {1100, 10}, {1, 10},
                                    {9, 17},  {40, 64}, {9, 127},  {3, 128},  {3, 129},   {7, 200},
                                    {5, 512}, {2, 520}, {4, 1000}, {3, 1001}, {1, 5003}};
  for (const auto& [n, c] : kShapes)
    for (const double smoothing : {0.0, 0.1})
      expect_all(random_problem<TypeParam>(n, c, 4, smoothing));
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, Misaligned) {
  for (const int64_t c : {16, 136, 1600}) {
    Problem<TypeParam> p = random_problem<TypeParam>(5, c, 4, 0.1);
    for (const auto& [logits, dlogits] : {std::pair{1, 0}, {0, 1}, {3, 3}}) {
      p.logits_offset = logits;
      p.dlogits_offset = dlogits;
      expect_all(p);
    }
  }
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, LogitsFarApart) {
  for (const int64_t c : {10, 1000})
    for (const double smoothing : {0.0, 0.1})
      expect_all(random_problem<TypeParam>(12, c, 250, smoothing));
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, FirstOfEqualLogitsIsThePrediction) {
  for (const int64_t c : {7, 40, 600}) {
    Problem<TypeParam> p = random_problem<TypeParam>(30, c, 1, 0);
    for (TypeParam& logit : p.logits)
      logit = from_host_float<TypeParam>(std::round(2 * to_host_float(logit)));
    // Labels of the first, the second and the last of the largest.
    for (int64_t row = 0; row < 30; ++row) {
      std::vector<std::int32_t> largest;
      for (std::int32_t i = 0; i < c; ++i)
        if (to_host_float(p.logits[static_cast<std::size_t>(row * c + i)]) == 2)
          largest.push_back(i);
      if (largest.size() < 2) continue;
      p.labels[static_cast<std::size_t>(row)] = row % 3 == 0   ? largest[0]
                                                : row % 3 == 1 ? largest[1]
                                                               : largest.back();
    }
    expect_all(p);
  }
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, InfinitiesAndNaN) {
  using T = TypeParam;
  for (const int64_t c : {1, 10, 600})
    for (const double bad : {kInfinity, -kInfinity, kNaN})
      for (const int64_t at : {int64_t{0}, c / 2, c - 1})
        for (const double smoothing : {0.0, 0.1}) {
          SCOPED_TRACE(std::to_string(bad) + " at " + std::to_string(at));
          // Alone; then between rows whose gradients stay finite.
          Problem<T> p = random_problem<T>(1, c, 4, smoothing);
          p.labels[0] = static_cast<std::int32_t>(c / 2);
          p.logits[static_cast<std::size_t>(at)] = from_host_float<T>(static_cast<float>(bad));
          expect_all(p);
          if (smoothing > 0) continue;
          Problem<T> three = random_problem<T>(3, c, 4, smoothing);
          std::copy(p.logits.begin(), p.logits.end(), three.logits.begin() + c);
          three.labels[1] = p.labels[0];
          expect_all(three);
        }
  Problem<T> nothing = random_problem<T>(2, 10, 4, 0);
  std::fill_n(nothing.logits.begin(), 10, from_host_float<T>(static_cast<float>(-kInfinity)));
  expect_all(nothing);
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, LabelOutOfRange) {
  for (const int64_t c : {1, 10, 600})
    for (const std::int64_t label : {int64_t{-1}, c, int64_t{INT32_MIN}, int64_t{INT32_MAX}}) {
      Problem<TypeParam> p = random_problem<TypeParam>(4, c, 4, 0);
      p.labels[1] = static_cast<std::int32_t>(label);
      const Expected expected = reference(p.logits, p.labels, c, 0, 1);
      EXPECT_TRUE(std::isnan(expected.loss) && std::isnan(expected.gradient[size_t(c)]));
      EXPECT_FALSE(std::isnan(expected.gradient[0]));
      expect_all(p);
    }
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, NoRows) {
  DeviceArray<float> loss(1);
  DeviceArray<std::int32_t> correct(1);
  DeviceArray<std::uint8_t> workspace(softmax_cross_entropy_workspace(0, 10));
  TypeParam* none = nullptr;
  softmax_cross_entropy_forward(kStream, none, nullptr, 0, 10, 0.0, loss.data(), correct.data(),
                                workspace.data());
  EXPECT_TRUE(std::isnan(loss.host()[0]));
  EXPECT_EQ(correct.host()[0], 0);
  softmax_cross_entropy_backward(kStream, none, nullptr, 0, 10, 0.0, loss.data(), none, true);
}

TYPED_TEST(KernelsSoftmaxCrossEntropy, SameBitsEachTime) {
  const auto p = random_problem<TypeParam>(700, 10, 4, 0.1);
  DeviceArray<TypeParam> logits(p.logits);
  DeviceArray<std::int32_t> labels(p.labels), correct(1);
  DeviceArray<float> loss(1);
  DeviceArray<std::uint8_t> workspace(softmax_cross_entropy_workspace(700, 10));
  std::vector<float> losses;
  for (int k = 0; k < 2; ++k) {
    softmax_cross_entropy_forward(kStream, logits.data(), labels.data(), 700, 10, 0.1, loss.data(),
                                  correct.data(), workspace.data());
    losses.push_back(loss.host()[0]);
  }
  EXPECT_EQ(losses[0], losses[1]);
}

// More rows than there are places at a time: blocks take several, by lanes and as a whole.
TEST(KernelsSoftmaxCrossEntropyRows, MoreThanPlaces) {
  for (const int64_t c : {1, 131}) {
    const Problem<float> p = random_problem<float>(c == 1 ? 1024 * 256 + 77 : 1077, c, 4, 0);
    DeviceArray<float> logits(p.logits), loss(1);
    DeviceArray<std::int32_t> labels(p.labels), correct(1);
    DeviceArray<std::uint8_t> workspace(softmax_cross_entropy_workspace(p.n(), c));
    softmax_cross_entropy_forward_backward(kStream, logits.data(), labels.data(), p.n(), c, 0.0,
                                           loss.data(), correct.data(), logits.data(),
                                           workspace.data());
    const Expected expected = reference(p.logits, p.labels, c, 0, 1);
    EXPECT_NEAR(loss.host()[0], expected.loss, expected.loss_error);
    EXPECT_EQ(correct.host()[0], expected.correct);
    expect_gradient(logits.host(), expected);
  }
}

TEST(KernelsSoftmaxCrossEntropyRows, TooManyClasses) {
  float x = 0;
  EXPECT_THROW(
      softmax_cross_entropy_backward(kStream, &x, nullptr, 1, int64_t{1} << 31, 0.0, &x, &x, false),
      KernelError);
}

}  // namespace
}  // namespace nf::NF_TARGET::test
