#include "kernels/optimizer.h"

#include <cfloat>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "tests/kernels/device.h"

// Blocks take 4096 elements each: 2^16 blocks would need arrays of a gigabyte and many seconds.
namespace nf::NF_TARGET::test {
namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kFloat = 0x1p-24;  // a rounding to f32
constexpr double kSecondOrder = 1.001;

/// One element, tails, a chunk and a little more or less, several, none; then more tensors than a
/// launch takes, `small` of them.
std::vector<int64_t> make_sizes(int small) {
  std::vector<int64_t> sizes{1, 3, 4, 5, 255, 1024, 4095, 4096, 4097, 0, 12301};
  for (int i = 0; i < small; ++i) sizes.push_back(1 + i * 7 % 40);
  return sizes;
}

/// Tensors in one array with gaps between, every third of them misaligned where asked for.
class Arena {
 public:
  Arena(const std::vector<int64_t>& sizes, std::uint32_t seed, bool misaligned, float low = -1,
        float high = 1)
      : begins_(place(sizes, misaligned)),
        array_(random_values<float>(begins_.back(), seed, low, high)) {}

  float* at(std::size_t tensor) { return array_.data() + begins_[tensor]; }
  int64_t begin(std::size_t tensor) const { return begins_[tensor]; }
  std::vector<float> host() const { return array_.host(); }
  void set(const std::vector<float>& values) {
    std::copy(values.begin(), values.end(), array_.data());
  }

 private:
  static std::vector<int64_t> place(const std::vector<int64_t>& sizes, bool misaligned) {
    std::vector<int64_t> begins;
    int64_t next = 0;
    for (const int64_t size : sizes) {
      begins.push_back(next + (misaligned && begins.size() % 3 == 1 ? 1 : 0));
      next = (begins.back() + size + 4) / 4 * 4;
    }
    begins.push_back(next);
    return begins;
  }

  std::vector<int64_t> begins_;
  DeviceArray<float> array_;
};

std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

/// What lies between tensors must keep its bits.
void expect_gaps(const Arena& arena, const std::vector<int64_t>& sizes,
                 const std::vector<float>& before, const std::vector<float>& after) {
  int64_t next = 0;
  for (std::size_t t = 0; t <= sizes.size(); ++t) {
    for (; next < arena.begin(t); ++next) ASSERT_EQ(after[index(next)], before[index(next)]);
    if (t < sizes.size()) next += sizes[t];
  }
}

struct Near {
  double value, error;
  void expect(float actual, const char* what, std::size_t tensor, int64_t i) const {
    ASSERT_NEAR(actual, value, kSecondOrder * error) << what << " " << i << " of tensor " << tensor;
  }
};

struct SgdExpected {
  Near w, v;
};

SgdExpected sgd_reference(double w, double grad, double v, bool buffered, const SgdOptions& o) {
  const double g = grad + o.weight_decay * w;
  const double g_error = kFloat * (2 * std::abs(o.weight_decay * w) + std::abs(g));
  const double old = o.first || !buffered ? 0 : o.momentum * v;
  const double next = old + g;
  const double next_error = g_error + kFloat * (2 * std::abs(old) + std::abs(next));
  double step = next, step_error = next_error;
  if (o.nesterov && buffered) {
    step = g + o.momentum * next;
    step_error = g_error + o.momentum * next_error +
                 kFloat * (2 * std::abs(o.momentum * next) + std::abs(step));
  }
  const double result = w - o.learning_rate * step;
  return {{result, o.learning_rate * step_error +
                       kFloat * (2 * std::abs(o.learning_rate * step) + std::abs(result))},
          {next, next_error}};
}

/// Three steps, each from what the one before stored. `misaligned`: the operand that is.
void expect_sgd(const std::vector<int64_t>& sizes, SgdOptions options, bool buffered,
                int misaligned) {
  SCOPED_TRACE("momentum " + std::to_string(options.momentum) + ", buffered " +
               std::to_string(buffered) + ", decay " + std::to_string(options.weight_decay) +
               ", nesterov " + std::to_string(options.nesterov) + ", misaligned operand " +
               std::to_string(misaligned));
  Arena w(sizes, 1, misaligned == 0), grad(sizes, 2, misaligned == 1), v(sizes, 3, misaligned == 2);
  std::vector<SgdTensor> tensors;
  for (std::size_t t = 0; t < sizes.size(); ++t)
    tensors.push_back({w.at(t), grad.at(t), buffered ? v.at(t) : nullptr, sizes[t]});
  for (std::uint32_t step = 0; step < 3; ++step) {
    options.first = step == 0;
    if (step > 0) grad.set(random_values<float>(grad.begin(sizes.size()), 10 + step));
    const auto old_w = w.host(), old_grad = grad.host();
    auto old_v = v.host();
    // The first step must not read the buffers.
    if (options.first && buffered) {
      auto poison = old_v;
      for (std::size_t t = 0; t < sizes.size(); ++t)
        std::fill_n(poison.begin() + v.begin(t), sizes[t], kNaN);
      v.set(poison);
    }
    sgd(kStream, tensors.data(), static_cast<int64_t>(tensors.size()), options);
    const auto new_w = w.host(), new_v = v.host();
    for (std::size_t t = 0; t < sizes.size(); ++t)
      for (int64_t i = 0; i < sizes[t]; ++i) {
        const std::size_t at_v = index(v.begin(t) + i);
        const SgdExpected expected =
            sgd_reference(old_w[index(w.begin(t) + i)], old_grad[index(grad.begin(t) + i)],
                          old_v[at_v], buffered, options);
        expected.w.expect(new_w[index(w.begin(t) + i)], "weight", t, i);
        if (buffered) expected.v.expect(new_v[at_v], "momentum", t, i);
        if (::testing::Test::HasFailure()) return;
      }
    expect_gaps(w, sizes, old_w, new_w);
    expect_gaps(v, sizes, old_v, new_v);
    EXPECT_EQ(grad.host(), old_grad);
    if (!buffered) {
      EXPECT_EQ(new_v, old_v);
    }
  }
}

TEST(KernelsOptimizer, Sgd) {
  for (const double decay : {0.0, 0.1})
    for (const bool nesterov : {false, true}) {
      const SgdOptions options{
          .learning_rate = 0.3, .momentum = 0.9, .weight_decay = decay, .nesterov = nesterov};
      expect_sgd(make_sizes(5), options, true, -1);
    }
  for (const double decay : {0.0, 0.1})
    expect_sgd(make_sizes(5), {.learning_rate = 0.3, .weight_decay = decay}, false, -1);
  // A buffer that nothing is kept in.
  expect_sgd(make_sizes(5), {.learning_rate = 0.3, .nesterov = true}, true, -1);
}

TEST(KernelsOptimizer, SgdMisaligned) {
  const SgdOptions options{.learning_rate = 0.1, .momentum = 0.5, .weight_decay = 0.01};
  for (const int operand : {0, 1, 2}) expect_sgd(make_sizes(5), options, true, operand);
  const SgdOptions plain{.learning_rate = 0.1};
  for (const int operand : {0, 1}) expect_sgd(make_sizes(5), plain, false, operand);
}

TEST(KernelsOptimizer, SgdOfManyTensors) {
  const SgdOptions options{.learning_rate = 0.1, .momentum = 0.5, .nesterov = true};
  // With the ten of make_sizes that are not empty: exactly one launch, one more, three.
  for (const int small : {54, 55, 150}) expect_sgd(make_sizes(small), options, true, 0);
  expect_sgd({}, options, true, -1);
  expect_sgd({0, 0}, options, true, -1);
}

TEST(KernelsOptimizer, SgdOfMixedTensors) {
  // A tensor without a buffer beside one with.
  DeviceArray<float> w(std::vector<float>{1, 1}), grad(std::vector<float>{2, 2}),
      v(std::vector<float>{5});
  const SgdTensor tensors[] = {{w.data(), grad.data(), v.data(), 1},
                               {w.data() + 1, grad.data() + 1, nullptr, 1}};
  sgd(kStream, tensors, 2, {.learning_rate = 0.5, .nesterov = true});
  EXPECT_EQ(w.host(), (std::vector<float>{0, 0}));
  EXPECT_EQ(v.host()[0], 2.0F);
}

TEST(KernelsOptimizer, SgdNeedsABufferForMomentum) {
  DeviceArray<float> w(1), grad(1);
  const SgdTensor tensor{w.data(), grad.data(), nullptr, 1};
  EXPECT_THROW(sgd(kStream, &tensor, 1, {.learning_rate = 1, .momentum = 0.9}), KernelError);
}

struct AdamWExpected {
  Near w, m, v;
};

AdamWExpected adamw_reference(double w, double g, double m, double v, const AdamWOptions& o) {
  const double kept_m = o.beta1 * m, new_m = kept_m + (1 - o.beta1) * g;
  const double m_error =
      kFloat * (2 * std::abs(kept_m) + 2 * std::abs((1 - o.beta1) * g) + std::abs(new_m));
  const double kept_v = o.beta2 * v, more_v = (1 - o.beta2) * g * g, new_v = kept_v + more_v;
  const double v_error = kFloat * (2 * kept_v + 3 * more_v + new_v);
  const auto step = static_cast<double>(o.step);
  const double rate = o.learning_rate / (1 - std::pow(o.beta1, step));
  const double divisor = std::sqrt(new_v / (1 - std::pow(o.beta2, step))) + o.eps;
  const double update = rate * new_m / divisor;
  // The root: of v, rounded itself, times a rounded factor; then eps, and a quotient of three more.
  const double root_error = new_v > 0 ? v_error / (2 * new_v) + 3 * kFloat : 0;
  const double update_error =
      rate * m_error / divisor + std::abs(update) * (root_error + 5 * kFloat);
  const double kept = w * (1 - o.learning_rate * o.weight_decay), result = kept - update;
  return {{result, update_error + kFloat * (2 * std::abs(kept) + std::abs(result))},
          {new_m, m_error},
          {new_v, v_error}};
}

void expect_adamw(const std::vector<int64_t>& sizes, AdamWOptions options, int misaligned) {
  SCOPED_TRACE("decay " + std::to_string(options.weight_decay) + ", misaligned operand " +
               std::to_string(misaligned));
  Arena w(sizes, 1, misaligned == 0), grad(sizes, 2, misaligned == 1), m(sizes, 3, misaligned == 2),
      v(sizes, 4, misaligned == 3);
  std::vector<AdamWTensor> tensors;
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    tensors.push_back({w.at(t), grad.at(t), m.at(t), v.at(t), sizes[t]});
    std::fill_n(m.at(t), sizes[t], 0.0F);
    std::fill_n(v.at(t), sizes[t], 0.0F);
  }
  for (std::uint32_t step = 0; step < 3; ++step, ++options.step) {
    if (step > 0) grad.set(random_values<float>(grad.begin(sizes.size()), 10 + step));
    if (!sizes.empty() && sizes[0] > 0) *grad.at(0) = 0;
    const auto old_w = w.host(), old_grad = grad.host(), old_m = m.host(), old_v = v.host();
    adamw(kStream, tensors.data(), static_cast<int64_t>(tensors.size()), options);
    const auto new_w = w.host(), new_m = m.host(), new_v = v.host();
    for (std::size_t t = 0; t < sizes.size(); ++t)
      for (int64_t i = 0; i < sizes[t]; ++i) {
        const std::size_t at_w = index(w.begin(t) + i), at_m = index(m.begin(t) + i),
                          at_v = index(v.begin(t) + i);
        const AdamWExpected expected = adamw_reference(
            old_w[at_w], old_grad[index(grad.begin(t) + i)], old_m[at_m], old_v[at_v], options);
        expected.w.expect(new_w[at_w], "weight", t, i);
        expected.m.expect(new_m[at_m], "first moment", t, i);
        expected.v.expect(new_v[at_v], "second moment", t, i);
        if (::testing::Test::HasFailure()) return;
      }
    expect_gaps(w, sizes, old_w, new_w);
    expect_gaps(m, sizes, old_m, new_m);
    expect_gaps(v, sizes, old_v, new_v);
    EXPECT_EQ(grad.host(), old_grad);
  }
}

TEST(KernelsOptimizer, AdamW) {
  for (const double decay : {0.0, 0.1})
    expect_adamw(make_sizes(5), {.learning_rate = 0.01, .weight_decay = decay}, -1);
  const AdamWOptions late{
      .learning_rate = 0.1, .beta1 = 0.5, .beta2 = 0.9, .eps = 0.01, .step = 1000};
  expect_adamw(make_sizes(5), late, -1);
}

TEST(KernelsOptimizer, AdamWMisaligned) {
  const AdamWOptions options{.learning_rate = 0.01, .weight_decay = 0.01};
  for (const int operand : {0, 1, 2, 3}) expect_adamw(make_sizes(5), options, operand);
}

TEST(KernelsOptimizer, AdamWOfManyTensors) {
  const AdamWOptions options{.learning_rate = 0.01};
  for (const int small : {54, 55, 150}) expect_adamw(make_sizes(small), options, 1);
  expect_adamw({}, options, -1);
}

TEST(KernelsOptimizer, AdamWCountsStepsFromOne) {
  DeviceArray<float> x(4);
  const AdamWTensor tensor{x.data(), x.data() + 1, x.data() + 2, x.data() + 3, 1};
  EXPECT_THROW(adamw(kStream, &tensor, 1, {.step = 0}), KernelError);
}

std::vector<GradientTensor> gradients(Arena& arena, const std::vector<int64_t>& sizes) {
  std::vector<GradientTensor> tensors;
  for (std::size_t t = 0; t < sizes.size(); ++t) tensors.push_back({arena.at(t), sizes[t]});
  return tensors;
}

float norm_of(const std::vector<GradientTensor>& tensors) {
  const auto count = static_cast<int64_t>(tensors.size());
  DeviceArray<std::uint8_t> workspace(gradient_norm_workspace(tensors.data(), count));
  DeviceArray<float> norm(1, 1);
  gradient_norm(kStream, tensors.data(), count, norm.data(), workspace.data());
  return norm.host()[0];
}

double norm_reference(const std::vector<GradientTensor>& tensors) {
  double sum = 0;
  for (const GradientTensor& t : tensors)
    for (int64_t i = 0; i < t.size; ++i) sum += double{t.grad[i]} * double{t.grad[i]};
  return std::sqrt(sum);
}

/// A tensor of three chunks and what the updates below make of it.
struct OneTensor {
  DeviceArray<float> w{random_values<float>(9000, 1)}, grad{random_values<float>(9000, 2)},
      m{random_values<float>(9000, 3)}, v{random_values<float>(9000, 4, 0, 1)};

  void by_sgd(const SgdOptions& options) {
    const SgdTensor tensor{w.data(), grad.data(), m.data(), w.size()};
    sgd(kStream, &tensor, 1, options);
  }
  void by_adamw(const AdamWOptions& options) {
    const AdamWTensor tensor{w.data(), grad.data(), m.data(), v.data(), w.size()};
    adamw(kStream, &tensor, 1, options);
  }
  std::vector<std::vector<float>> host() const { return {w.host(), m.host(), v.host()}; }
};

TEST(KernelsOptimizer, TakesItsNumbersFromMemoryWhereGiven) {
  DeviceArray<UpdateScalars> scalars(
      std::vector{sgd_scalars(0.3), adamw_scalars(0.02, 0.8, 0.99, 0.1, 7)});
  OneTensor by_value, from_memory;
  by_value.by_sgd({.learning_rate = 0.3, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true});
  from_memory.by_sgd({.learning_rate = 5,
                      .momentum = 0.9,
                      .weight_decay = 0.1,
                      .nesterov = true,
                      .source = {.scalars = scalars.data()}});
  EXPECT_EQ(from_memory.host(), by_value.host());
  by_value.by_adamw(
      {.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.99, .weight_decay = 0.1, .step = 7});
  from_memory.by_adamw({.learning_rate = 5,
                        .beta1 = 0.8,
                        .beta2 = 0.99,
                        .weight_decay = 3,
                        .step = 1,
                        .source = {.scalars = scalars.data() + 1}});
  EXPECT_EQ(from_memory.host(), by_value.host());
}

TEST(KernelsOptimizer, UpdatesNothingWhereLossOrNormIsNotFinite) {
  DeviceArray<float> numbers(std::vector<float>{1.5F, kNaN, kInfinity, -kInfinity});
  OneTensor t;
  const auto before = t.host();
  for (int bad = 1; bad < 4; ++bad)
    for (const bool in_loss : {false, true}) {
      const UpdateSource source{.loss = numbers.data() + (in_loss ? bad : 0),
                                .norm = numbers.data() + (in_loss ? 0 : bad)};
      t.by_sgd({.learning_rate = 0.3, .momentum = 0.9, .source = source});
      t.by_adamw({.learning_rate = 0.3, .source = source});
      EXPECT_EQ(t.host(), before) << bad << (in_loss ? " in the loss" : " in the norm");
    }
  t.by_sgd({.learning_rate = 0.3, .source = {.loss = numbers.data(), .norm = numbers.data()}});
  EXPECT_NE(t.host(), before);
}

TEST(KernelsOptimizer, GradientNorm) {
  // Squares beyond f32 on either side, where a sum of them in f32 would be infinite or 0.
  for (const float size : {1.0F, 1e30F, 1e-30F})
    for (const bool misaligned : {false, true})
      for (const int small : {5, 54, 55, 150}) {
        const auto sizes = make_sizes(small);
        Arena grad(sizes, 1, misaligned, -size, size);
        const auto tensors = gradients(grad, sizes);
        const double expected = norm_reference(tensors);
        const float actual = norm_of(tensors);
        EXPECT_NEAR(actual, expected, kSecondOrder * kFloat * expected) << size << " " << small;
        EXPECT_EQ(norm_of(tensors), actual);
      }
}

TEST(KernelsOptimizer, GradientNormOfLittle) {
  EXPECT_EQ(norm_of({}), 0.0F);
  EXPECT_EQ(norm_of({{nullptr, 0}}), 0.0F);
  DeviceArray<float> one(std::vector<float>{-3});
  EXPECT_EQ(norm_of({{one.data(), 1}}), 3.0F);
  *one.data() = FLT_MAX;
  EXPECT_EQ(norm_of({{one.data(), 1}}), FLT_MAX);
}

TEST(KernelsOptimizer, GradientNormOfInfinityAndNaN) {
  const auto sizes = make_sizes(60);
  for (const std::size_t tensor : {std::size_t{0}, std::size_t{8}, sizes.size() - 1}) {
    Arena grad(sizes, 1, true);
    const auto tensors = gradients(grad, sizes);
    grad.at(tensor)[sizes[tensor] - 1] = -kInfinity;
    EXPECT_EQ(norm_of(tensors), kInfinity) << tensor;
    grad.at(tensor)[sizes[tensor] - 1] = kNaN;
    EXPECT_TRUE(std::isnan(norm_of(tensors))) << tensor;
  }
}

void expect_clipped(const std::vector<int64_t>& sizes, bool misaligned, float norm,
                    float max_norm) {
  SCOPED_TRACE(std::to_string(norm) + " to " + std::to_string(max_norm));
  Arena grad(sizes, 1, misaligned);
  const auto tensors = gradients(grad, sizes);
  DeviceArray<float> of(std::vector<float>{norm}, 1);
  const auto before = grad.host();
  clip_gradients(kStream, tensors.data(), static_cast<int64_t>(tensors.size()), of.data(),
                 max_norm);
  const auto after = grad.host();
  const float quotient = max_norm / (norm + 1e-6F);
  const float factor = quotient >= 1 ? 1.0F : quotient;
  for (std::size_t t = 0; t < sizes.size(); ++t)
    for (int64_t i = grad.begin(t); i < grad.begin(t) + sizes[t]; ++i) {
      if (std::isnan(factor))
        ASSERT_TRUE(std::isnan(after[index(i)])) << i << " of tensor " << t;
      else
        ASSERT_EQ(after[index(i)], before[index(i)] * factor) << i << " of tensor " << t;
    }
  expect_gaps(grad, sizes, before, after);
}

TEST(KernelsOptimizer, ClipGradients) {
  for (const int small : {5, 54, 55, 150})
    for (const bool misaligned : {false, true})
      expect_clipped(make_sizes(small), misaligned, 7.0F, 2.5F);
  // At the bound, below it, nothing, everything; what PyTorch makes of no number.
  for (const float norm : {2.5F, 2.4F, 0.0F, 1e-7F, 1e30F, kInfinity, kNaN})
    expect_clipped(make_sizes(5), false, norm, 2.5F);
  expect_clipped(make_sizes(5), false, 1.0F, 0.0F);
  expect_clipped({}, false, 2.0F, 1.0F);
}

TEST(KernelsOptimizer, GradientsFinite) {
  const auto sizes = make_sizes(60);
  for (const bool misaligned : {false, true}) {
    Arena grad(sizes, 1, misaligned);
    const auto tensors = gradients(grad, sizes);
    DeviceArray<std::int32_t> flag(1, 1);
    const auto flag_after = [&](std::int32_t before) {
      *flag.data() = before;
      gradients_finite(kStream, tensors.data(), static_cast<int64_t>(tensors.size()), flag.data());
      return flag.host()[0];
    };
    // Gaps do not count.
    auto values = grad.host();
    for (std::size_t t = 0; t + 1 < sizes.size(); ++t)
      for (int64_t i = grad.begin(t) + sizes[t]; i < grad.begin(t + 1); ++i)
        values[index(i)] = kNaN;
    grad.set(values);
    grad.at(5)[7] = FLT_MAX;
    EXPECT_EQ(flag_after(1), 1);
    EXPECT_EQ(flag_after(7), 7);
    EXPECT_EQ(flag_after(0), 0);
    for (const std::size_t t : {std::size_t{0}, std::size_t{8}, std::size_t{10}, sizes.size() - 1})
      for (const int64_t i : {int64_t{0}, sizes[t] / 2, sizes[t] - 1})
        for (const float bad : {kInfinity, -kInfinity, kNaN}) {
          const float old = std::exchange(grad.at(t)[i], bad);
          EXPECT_EQ(flag_after(1), 0) << bad << " at " << i << " of tensor " << t;
          grad.at(t)[i] = old;
        }
    EXPECT_EQ(flag_after(1), 1);
  }
}

}  // namespace
}  // namespace nf::NF_TARGET::test
