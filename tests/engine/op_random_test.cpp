// Random tensors: the bits that the headers state, on every device, and their distribution.
#include <cmath>
#include <numbers>

#include "engine/memory/trace.h"
#include "engine/ops/ops.h"
#include "kernels/philox.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr RandomAddress kAt{0xfedcba9876543210ULL, 7};
constexpr std::int64_t kCounts[] = {1, 3, 4, 7, 1024, 20011};

/// Uniform number i in [0, 1), exact in double.
double uniform_number(std::int64_t i) {
  const Philox4 bits = philox(kAt.key, static_cast<std::uint64_t>(i / 4), kAt.stream);
  return static_cast<double>(uniform01(bits.v[i % 4]));
}

/// Box-Muller in double: the cosine has the even place of a pair, the sine the odd one.
double normal_number(std::int64_t i) {
  const std::int64_t pair = i / 2 * 2;
  const double radius = std::sqrt(-2 * std::log(1 - uniform_number(pair)));
  const double angle = 2 * std::numbers::pi * uniform_number(pair + 1);
  return radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

class OpRandom : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
  ContextPtr context_ = GetParam().missing().empty() ? GetParam().context(kThreads) : nullptr;
  DType dtype_ = GetParam().dtype;
};

TEST_P(OpRandom, UniformNumbersAreRoundedOnce) {
  for (const std::int64_t n : kCounts) {
    Values expected;
    // The product and the sum are exact in double, whose rounding to f32 is the fused step's.
    for (std::int64_t i = 0; i < n; ++i)
      expected.push_back(stored(dtype_, -0.75 + uniform_number(i) * 2.0));
    const Tensor y = uniform(context_, {n}, -0.75, 1.25, kAt, dtype_);
    EXPECT_EQ(y.dtype(), dtype_);
    expect_close(to_values(y), expected, 0, std::to_string(n));
  }
}

TEST_P(OpRandom, NormalNumbersAreBoxMullers) {
  for (const std::int64_t n : kCounts) {
    Values expected;
    for (std::int64_t i = 0; i < n; ++i) expected.push_back(0.5 + 3 * normal_number(i));
    // Radius, sine and cosine are off by some roundings of numbers below 5.8; so is their product.
    const double allowed = 3 * 5.8 * 8 * 0x1p-24;
    expect_close(to_values(normal(context_, {n}, 0.5, 3, kAt, dtype_)), expected, allowed,
                 std::to_string(n), GetParam().rounding());
  }
}

TEST_P(OpRandom, EveryDeviceGivesTheSameBits) {
  const ContextPtr cpu = kCpuPaths[0].context(1);
  for (const std::int64_t n : kCounts) {
    Values drawn = to_values(uniform(cpu, {n}, -0.3, 1.1, kAt));
    Values normals = to_values(normal(cpu, {n}, 0.1, 1.7, kAt));
    for (Values* values : {&drawn, &normals})
      for (double& value : *values) value = stored(dtype_, value);
    EXPECT_EQ(to_values(uniform(context_, {n}, -0.3, 1.1, kAt, dtype_)), drawn);
    EXPECT_EQ(to_values(normal(context_, {n}, 0.1, 1.7, kAt, dtype_)), normals);
  }
}

TEST_P(OpRandom, KeysAndStreamsDiffer) {
  const auto draw = [&](RandomAddress at) {
    return to_values(uniform(context_, {64}, 0, 1, at, dtype_));
  };
  EXPECT_NE(draw({1, 2}), draw({2, 2}));
  EXPECT_NE(draw({1, 2}), draw({1, 3}));
  EXPECT_EQ(draw({1, 2}), draw({1, 2}));
}

TEST_P(OpRandom, FillsWhatIsThere) {
  Tensor y = Tensor::full(context_, {3, 5, 7}, 9, dtype_);
  const std::uint64_t version = y.version();
  const std::int64_t live = context_->pool().stats().live;
  fill_normal(y, 0, 1, kAt);
  EXPECT_EQ(context_->pool().stats().live, live);
  EXPECT_GT(y.version(), version) << "an in-place edit that no tape would notice";
  EXPECT_EQ(to_values(y), to_values(normal(context_, {3, 5, 7}, 0, 1, kAt, dtype_)));
  fill_uniform(y, 2, 2, kAt);
  EXPECT_EQ(to_values(y), Values(105, 2));
}

TEST_P(OpRandom, MetaAsksForTheSameMemory) {
  const ContextPtr meta = make_meta_context(context_->options());
  const auto peak = [&](const ContextPtr& context) {
    context->pool().reset_peak();
    uniform(context, {1000}, 0, 1, kAt, dtype_);
    normal(context, {33, 7}, 0, 1, kAt, dtype_);
    return context->pool().stats().peak_reserved;
  };
  EXPECT_EQ(peak(meta), peak(context_));
}

INSTANTIATE_TEST_SUITE_P(Devices, OpRandom, ::testing::ValuesIn(all_paths()),
                         [](const auto& info) { return info.param.name; });

TEST(OpRandomErrors, NameTheRuleAndTheValues) {
  const ContextPtr context = make_meta_context({});
  const auto text = [&](auto draw, double a, double b, DType dtype = DType::f32) {
    return error_text([&] { draw(context, {2}, a, b, kAt, dtype, Category::input); });
  };
  EXPECT_EQ(text(uniform, 1, -1), "uniform: low must not be above high, both finite, got 1 to -1");
  EXPECT_EQ(text(uniform, -3e38, 3e38),
            "uniform: low must not be above high, both finite, got -3e+38 to 3e+38");
  EXPECT_EQ(text(normal, 0, -1),
            "normal: mean must be finite and the standard deviation not negative, got 0 and -1");
  EXPECT_EQ(text(normal, 0, 1e39),
            "normal: mean must be finite and the standard deviation not negative, got 0 and 1e+39");
  EXPECT_EQ(text(normal, 0, 1, DType::i32), "normal: the output must be f32 or f64, got i32 [2]");
}

}  // namespace
}  // namespace nf::test
