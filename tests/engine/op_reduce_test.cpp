// What reductions promise beyond their formulas.
#include <cmath>
#include <limits>

#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr double kNanDouble = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinityDouble = std::numeric_limits<double>::infinity();

class OpReduce : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
  ContextPtr context_ = GetParam().missing().empty() ? GetParam().context(kThreads) : nullptr;
  DType dtype_ = GetParam().dtype;

  Tensor tensor(const Shape& shape, const Values& values) const {
    return to_tensor(context_, shape, values, dtype_);
  }
};

TEST_P(OpReduce, NanPropagatesFromEveryPlace) {
  constexpr std::int64_t rows = 3, columns = 67;
  for (std::int64_t at = 0; at < rows * columns; at += 5) {
    Values values = random_values(rows * columns, "x", -1, 1, dtype_);
    values[static_cast<std::size_t>(at)] = kNanDouble;
    const Tensor x = tensor({rows, columns}, values);
    for (const auto& reduce : {nf::min, nf::max, nf::sum_of_squares}) {
      EXPECT_TRUE(std::isnan(to_values(reduce(x, Per::tensor))[0])) << at;
      const Values by_row = to_values(reduce(x, Per::row));
      for (std::int64_t row = 0; row < rows; ++row)
        EXPECT_EQ(std::isnan(by_row[static_cast<std::size_t>(row)]), row == at / columns) << at;
    }
    EXPECT_TRUE(std::isnan(to_values(mean(nullptr, x))[0])) << at;
  }
}

TEST_P(OpReduce, InfinitiesStay) {
  const Tensor x = tensor({2, 3}, {1, kInfinityDouble, 2, -kInfinityDouble, 3, kInfinityDouble});
  EXPECT_EQ(to_values(sum(nullptr, x, Per::row))[0], kInfinityDouble);
  EXPECT_TRUE(std::isnan(to_values(sum(nullptr, x, Per::row))[1]));
  EXPECT_EQ(to_values(nf::min(x, Per::row)), (Values{1, -kInfinityDouble}));
  EXPECT_EQ(to_values(nf::max(x)), (Values{kInfinityDouble}));
  EXPECT_EQ(to_values(sum_of_squares(x)), (Values{kInfinityDouble}));
}

// What is counted is each element's own place: head, vectors, tail, parts.
TEST_P(OpReduce, AllFiniteSeesEveryElement) {
  for (const std::int64_t n : {1, 5, 64, 1031, 40003}) {
    Values values = random_values(n, "x", -1, 1, dtype_);
    values[0] = dtype_ == DType::f16 ? 65504 : 3e38;  // bf16 rounds it down, none to infinity
    EXPECT_TRUE(all_finite(tensor({n}, values))) << n;
    for (std::int64_t at = 0; at < n; at += n < 100 ? 1 : n / 13)
      for (const double bad : {kNanDouble, kInfinityDouble, -kInfinityDouble}) {
        Values broken = values;
        broken[static_cast<std::size_t>(at)] = bad;
        EXPECT_FALSE(all_finite(tensor({n}, broken))) << bad << " at " << at << " of " << n;
      }
  }
  EXPECT_EQ(context_->pool().stats().live, 0);
  EXPECT_TRUE(all_finite(Tensor::empty(make_meta_context(context_->options()), {3}, dtype_)));
}

TEST_P(OpReduce, TheSameBitsWhateverTheThreads) {
  const Shape shape{5, 97, 131};
  const Values values = random_values(shape.numel(), "x", -1, 1, dtype_);
  const auto results = [&](int threads) {
    const Tensor x = to_tensor(GetParam().context(threads), shape, values, dtype_);
    Values all = to_values(sum(nullptr, x, Per::row));
    all.push_back(to_values(sum(nullptr, x))[0]);
    all.push_back(to_values(sum_of_squares(x))[0]);
    return all;
  };
  const Values one = results(1);
  for (const int threads : {2, 3, 8}) EXPECT_EQ(results(threads), one) << threads;
}

// In 16 bits the result would be infinite, or stop growing at 2^8 or 2^11.
TEST_P(OpReduce, SumsOf16BitsAreF32) {
  const Tensor x = Tensor::full(context_, {100000}, 1, dtype_);
  const Tensor total = sum(nullptr, x);
  EXPECT_EQ(total.dtype(), statistics_dtype(dtype_));
  EXPECT_EQ(to_values(total), (Values{100000}));
  EXPECT_EQ(to_values(mean(nullptr, x)), (Values{1}));
}

TEST_P(OpReduce, KeepsNothingForTheBackward) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6}).set_requires_grad(true);
  Tape tape;
  sum(&tape, x);
  mean(&tape, x, Per::row);
  EXPECT_EQ(tape.nodes().size(), 2U);
  EXPECT_EQ(tape.saved_bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(Devices, OpReduce, ::testing::ValuesIn(all_paths()),
                         [](const auto& info) { return info.param.name; });

// The CPU loses no digit that f64 could hold, where plain addition loses all.
TEST(OpReduceCpu, IsCompensated) {
  const ContextPtr context = kCpuPaths[2].context();
  Values values(3 * 512, 0.0);
  values[0] = 1e17;
  values[512] = 1;
  values[1024] = -1e17;
  EXPECT_EQ(to_values(sum(nullptr, to_tensor(context, {3 * 512}, values, DType::f64))),
            (Values{1}));
}

TEST(OpReduceErrors, NameTheOperatorAndTheRule) {
  const ContextPtr context = make_meta_context({});
  const auto make = [&](const Shape& shape, DType dtype = DType::f32) {
    return Tensor::empty(context, shape, dtype);
  };
  EXPECT_EQ(error_text([&] {
              sum(nullptr, make({0, 3}));
            }),
            "sum: the input must have elements, got [0,3]");
  EXPECT_EQ(error_text([&] { mean(nullptr, make({}), Per::row); }),
            "mean: the input must have a dimension of rows, got []");
  EXPECT_EQ(error_text([&] { nf::max(make({3}, DType::u8)); }),
            "max: the input must be f32 or f64, got u8 [3]");
  EXPECT_EQ(error_text([&] { all_finite({}); }), "all_finite: the input is an empty tensor");
  Tensor x = make({2, 3});
  x.set_requires_grad(true);
  Tape tape;
  const Tensor y = relu(&tape, x);
  EXPECT_EQ(error_text([&] { nf::min(y); }),
            "min: no gradient flows through it; detach [2,3] first");
  EXPECT_EQ(error_text([&] { nf::min(y.detached()); }), "");
  EXPECT_EQ(error_text([&] { nf::min(x); }), "") << "a parameter's own extremes";
}

}  // namespace
}  // namespace nf::test
