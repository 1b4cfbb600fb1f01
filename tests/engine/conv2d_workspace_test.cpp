// That convolutions stay within the workspace they ask for, whoever computes them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/context.h"
#include "engine/random.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr std::size_t kGuardBytes = 16384;
constexpr std::byte kGuard{0xA5};

std::vector<float> random_values(std::int64_t count) {
  RandomStream random(random_key(5, Purpose::test));
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = random.normal();
  return values;
}

class Conv2dWorkspace : public testing::TestWithParam<DevicePath> {};

TEST_P(Conv2dWorkspace, IsNotLeft) {
  const ContextPtr context = Context::create(GetParam().options(1));
  Backend& backend = context->backend();
  for (const std::int64_t stride : {1, 2})
    for (const std::int64_t kernel : {1, 3})
      for (const std::int64_t in : {3, 4, 8, 12, 16, 32})
        for (const std::int64_t out : {4, 8, 20, 32}) {
          const Conv2dProblem p{DType::f32, 6,      16,     16,         in, out,
                                kernel,     kernel, stride, kernel / 2, 1};
          const Shape x_shape{p.n, p.h, p.w, p.c}, w_shape{p.o, p.kh, p.kw, p.c},
              y_shape{p.n, p.out_h(), p.out_w(), p.o};
          std::vector<float> x = random_values(x_shape.numel()), w = random_values(w_shape.numel()),
                             y = random_values(y_shape.numel());
          const auto view = [](std::vector<float>& values, const Shape& shape) {
            return View{values.data(), DType::f32, shape};
          };
          const auto guarded = [&](const char* name, Pass pass, GradMode mode, const auto& run) {
            const std::int64_t bytes = backend.conv2d_workspace(p, pass, mode);
            Tensor memory = Tensor::full(context, {bytes + static_cast<std::int64_t>(kGuardBytes)},
                                         0.0, DType::u8);
            auto* data = memory.mutable_view().as<std::byte>();
            std::fill_n(data + bytes, kGuardBytes, kGuard);
            run(Workspace{data, bytes});
            EXPECT_EQ(std::count(data + bytes, data + bytes + kGuardBytes, kGuard),
                      static_cast<std::ptrdiff_t>(kGuardBytes))
                << name << " of " << in << " to " << out << " channels, kernel " << kernel
                << ", stride " << stride << ": wrote behind " << bytes << " bytes";
          };
          guarded("forward", Pass::forward, GradMode::overwrite, [&](Workspace workspace) {
            backend.conv2d_forward(p, view(x, x_shape), view(w, w_shape), {}, {}, view(y, y_shape),
                                   workspace);
          });
          for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
            guarded("backward_input", Pass::backward_input, mode, [&](Workspace workspace) {
              backend.conv2d_backward_input(p, view(y, y_shape), view(w, w_shape), view(x, x_shape),
                                            mode, workspace);
            });
            guarded("backward_weight", Pass::backward_weight, mode, [&](Workspace workspace) {
              backend.conv2d_backward_weight(p, view(x, x_shape), view(y, y_shape),
                                             view(w, w_shape), mode, workspace);
            });
          }
        }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Conv2dWorkspace, testing::ValuesIn(kCpuPaths),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nf::test
