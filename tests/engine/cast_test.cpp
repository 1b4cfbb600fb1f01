// Casts between storage types: values to the bit, gradients, what can't be cast.
#include <cmath>
#include <limits>

#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

class Cast : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }

  /// What the device computes in, and what it only stores: the CPU casts all of them.
  std::vector<DType> types() const {
    if (GetParam().device == DeviceKind::cpu)
      return {DType::f32, DType::f64, DType::f16, DType::bf16};
    return {DType::f32, DType::f16, DType::bf16};
  }
};

// Ties, numbers below the normal ones of f16, its overflow, and more than a vector's worth.
Values samples(DType from) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Values values{0,     -0.0,  1,       -1,      1 + 0x1p-8, 1 + 0x1p-11, 65504,    65519.96,
                65520, -1e30, 0x1p-24, 0x1p-25, 0x3p-25,    0x1p-130,    infinity, -infinity};
  for (const double value : random_values(1000, "cast", -300, 300)) values.push_back(value);
  for (double& value : values) value = stored(from, value);
  return values;
}

TEST_P(Cast, RoundsToNearestEven) {
  const ContextPtr context = GetParam().context(kThreads);
  for (const DType from : types())
    for (const DType to : types()) {
      const std::string what = fmt::format("{} to {}", to_string(from), to_string(to));
      const Values x = samples(from);
      const Shape shape{static_cast<std::int64_t>(x.size())};
      const Tensor y = cast(nullptr, to_tensor(context, shape, x, from), to);
      ASSERT_EQ(y.dtype(), to) << what;
      const Values actual = to_values(y);
      for (std::size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(actual[i], stored(to, x[i])) << what << ", " << x[i];
        EXPECT_EQ(std::signbit(actual[i]), std::signbit(x[i])) << what << ", " << x[i];
      }
    }
}

TEST_P(Cast, KeepsNan) {
  const ContextPtr context = GetParam().context();
  for (const DType from : types())
    for (const DType to : types()) {
      const Tensor x = to_tensor(context, {1}, {std::nan("")}, from);
      EXPECT_TRUE(std::isnan(to_values(cast(nullptr, x, to))[0]))
          << to_string(from) << " to " << to_string(to);
    }
}

TEST_P(Cast, ToItsOwnTypeIsTheTensorItself) {
  const ContextPtr context = GetParam().context();
  const Tensor x = Tensor::full(context, {3}, 2).set_requires_grad(true);
  Tape tape;
  EXPECT_EQ(cast(&tape, x, DType::f32).id(), x.id());
  EXPECT_TRUE(tape.nodes().empty());
}

TEST_P(Cast, BringsItsGradientBackInTheInputsType) {
  const ContextPtr context = GetParam().context();
  const Values dy{1 + 0x1p-7, -3, 0x1p-20};
  Tensor x = to_tensor(context, {3}, {1, 2, 3}, DType::f32).set_requires_grad(true);
  Tape tape;
  const Tensor y = cast(&tape, x, DType::bf16);
  EXPECT_EQ(tape.saved_bytes(), 0);
  tape.backward(y, to_tensor(context, {3}, dy, DType::bf16, Category::activation_gradient));
  ASSERT_TRUE(x.grad());
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(to_values(x.grad()), dy);
}

TEST_P(Cast, RefusesWhatIsNoFloatingType) {
  const ContextPtr context = GetParam().context();
  const Tensor x = Tensor::full(context, {3}, 2), n = Tensor::full(context, {3}, 2, DType::i32);
  EXPECT_EQ(error_text([&] { cast(nullptr, x, DType::u8); }),
            "cast: from and to f32, f64, f16 and bf16 only, got f32 to u8");
  EXPECT_EQ(error_text([&] { cast(nullptr, n, DType::f32); }),
            "cast: from and to f32, f64, f16 and bf16 only, got i32 to f32");
  EXPECT_EQ(error_text([&] { cast(nullptr, {}, DType::f32); }),
            "cast: the input is an empty tensor");
}

INSTANTIATE_TEST_SUITE_P(Op, Cast, ::testing::ValuesIn([] {
                           std::vector<DevicePath> paths = device_paths();
                           std::erase_if(paths, [](const DevicePath& path) {
                             return path.dtype == DType::f64 || !path.onednn;
                           });
                           return paths;
                         }()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::test
