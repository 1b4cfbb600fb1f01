// That convolutions stay within the workspace they ask for, and that nothing that was there before,
// in the workspace or where the result goes, gets into the result: whoever computes them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/context.h"
#include "engine/random.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr std::size_t kGuardBytes = 16384;
constexpr std::byte kGuard{0xA5};
constexpr std::byte kNotANumber{0xFF};  // in all bytes of a float

struct Held {
  Shape shape;
  std::vector<float> values;

  explicit Held(const Shape& of) : shape(of), values(static_cast<std::size_t>(of.numel())) {}
  View view() { return {values.data(), DType::f32, shape}; }
};

Held random_values(const Shape& shape) {
  RandomStream random(random_key(5, Purpose::test));
  Held result(shape);
  for (float& value : result.values) value = random.normal();
  return result;
}

Held not_numbers(const Shape& shape) {
  Held result(shape);
  std::ranges::fill(result.values, std::numeric_limits<float>::quiet_NaN());
  return result;
}

bool all_numbers(const Held& held) {
  return std::ranges::none_of(held.values, [](float value) { return std::isnan(value); });
}

std::vector<Conv2dProblem> problems() {
  std::vector<Conv2dProblem> result;
  for (const std::int64_t stride : {1, 2})
    for (const std::int64_t kernel : {1, 3}) {
      for (const std::int64_t in : {3, 4, 8, 12, 16, 32})
        for (const std::int64_t out : {4, 8, 20, 32})
          result.push_back({DType::f32, 6, 16, 16, in, out, kernel, kernel, stride, kernel / 2, 1});
      // The CPU's own paths: many filters on few cells, some of which no filter sees.
      for (const std::int64_t size : {1, 2, 3})
        result.push_back(
            {DType::f32, 6, size, size, 256, 260, kernel, kernel, stride, kernel / 2, 1});
    }
  for (const std::int64_t stride : {1, 2, 3})
    for (const std::int64_t kernel : {1, 3, 5})
      for (const std::int64_t channels : {4, 12, 40})
        result.push_back({DType::f32, 2, 9, 7, channels, channels, kernel, kernel, stride,
                          kernel / 2, channels});
  return result;
}

class Conv2dWorkspace : public testing::TestWithParam<DevicePath> {};

TEST_P(Conv2dWorkspace, IsNeitherLeftNorTrusted) {
  const ContextPtr context = Context::create(GetParam().options(1));
  Backend& backend = context->backend();
  for (const Conv2dProblem& p : problems()) {
    Held x = random_values({p.n, p.h, p.w, p.c});
    Held w = random_values({p.o, p.kh, p.kw, p.c / p.groups});
    Held dy = random_values({p.n, p.out_h(), p.out_w(), p.o});
    const auto check = [&](const char* name, Pass pass, GradMode mode, const Shape& shape,
                           const auto& run) {
      const std::string told =
          fmt::format("{} of {} to {} channels in {} groups, {}x{}, kernel {}, stride {}, {}", name,
                      p.c, p.o, p.groups, p.h, p.w, p.kh, p.stride,
                      mode == GradMode::overwrite ? "overwriting" : "adding");
      const std::int64_t bytes = backend.conv2d_workspace(p, pass, mode);
      Tensor memory =
          Tensor::full(context, {bytes + static_cast<std::int64_t>(kGuardBytes)}, 0.0, DType::u8);
      auto* data = memory.mutable_view().as<std::byte>();
      std::fill_n(data, bytes, kNotANumber);
      std::fill_n(data + bytes, kGuardBytes, kGuard);
      Held out = mode == GradMode::overwrite ? not_numbers(shape) : random_values(shape);
      run(out.view(), Workspace{data, bytes});
      EXPECT_EQ(std::count(data + bytes, data + bytes + kGuardBytes, kGuard),
                static_cast<std::ptrdiff_t>(kGuardBytes))
          << told << ": wrote behind " << bytes << " bytes";
      EXPECT_TRUE(all_numbers(out)) << told << ": depends on what was there before";
    };
    check("forward", Pass::forward, GradMode::overwrite, dy.shape,
          [&](View out, Workspace workspace) {
            backend.conv2d_forward(p, x.view(), w.view(), {}, {}, out, workspace);
          });
    for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
      check("backward_input", Pass::backward_input, mode, x.shape,
            [&](View out, Workspace workspace) {
              backend.conv2d_backward_input(p, dy.view(), w.view(), out, mode, workspace);
            });
      check("backward_weight", Pass::backward_weight, mode, w.shape,
            [&](View out, Workspace workspace) {
              backend.conv2d_backward_weight(p, x.view(), dy.view(), out, mode, workspace);
            });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Conv2dWorkspace, testing::ValuesIn(kCpuPaths),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nf::test
