// Layers wider than the CPU's row of zeros, which stands in for a bias that is not there.
#include "engine/backends/cpu/zeros.h"

#include <gtest/gtest.h>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/ops/conv2d.h"
#include "engine/ops/linear.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr std::int64_t kWide = cpu::kMostZeros + 1;

class WideLayer : public testing::TestWithParam<DevicePath> {};

// x (2, ...) of ones, w (kWide, ...) of 3: what comes out is 3 everywhere, or 5 with a bias of 2.
void expect_sums(const Tensor& y, float expected) {
  const std::vector<float> values = y.to_host<float>();
  ASSERT_EQ(std::ssize(values), 2 * kWide);
  for (const float value : values) ASSERT_EQ(value, expected);
}

TEST_P(WideLayer, IsComputedWithABiasAndWithout) {
  const ContextPtr context = GetParam().context();
  const Tensor bias = Tensor::full(context, {kWide}, 2.0);
  const Tensor x = Tensor::full(context, {2, 1}, 1.0), w = Tensor::full(context, {kWide, 1}, 3.0);
  expect_sums(linear(nullptr, x, w, {}), 3);
  expect_sums(linear(nullptr, x, w, bias), 5);
  const Tensor image = Tensor::full(context, {2, 1, 1, 1}, 1.0);
  const Tensor filters = Tensor::full(context, {kWide, 1, 1, 1}, 3.0);
  expect_sums(conv2d(nullptr, image, filters, {}, {}), 3);
  expect_sums(conv2d(nullptr, image, filters, bias, {}), 5);
}

INSTANTIATE_TEST_SUITE_P(Cpu, WideLayer, testing::ValuesIn(kCpuPaths, kCpuPaths + 2),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(WideLayers, AreNotForWinograd) {
  Conv2dProblem p{DType::f32, 1, 8, 8, cpu::kMostZeros, 16, 3, 3, 1, 1, 1};
  EXPECT_TRUE(cpu::winograd_conv2d_possible(p));
  p.c += 16;
  EXPECT_FALSE(cpu::winograd_conv2d_possible(p));
  std::swap(p.c, p.o);
  EXPECT_FALSE(cpu::winograd_conv2d_possible(p));
}

}  // namespace
}  // namespace nf::test
