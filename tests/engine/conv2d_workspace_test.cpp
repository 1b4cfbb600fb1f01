// That convolutions stay within the workspace they ask for, and that nothing that was there before,
// in the workspace or where the result goes, gets into the result: whoever computes them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/random.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr std::size_t kGuardBytes = 16384;
constexpr std::byte kGuard{0xA5};
constexpr std::byte kNotANumber{0xFF};  // in all bytes of a real number

template <typename T>
struct Held {
  Shape shape;
  std::vector<T> values;

  explicit Held(const Shape& of) : shape(of), values(static_cast<std::size_t>(of.numel())) {}
  View view() { return {values.data(), dtype_of<T>::value, shape}; }
};

template <typename T>
Held<T> random_values(const Shape& shape) {
  RandomStream random(random_key(5, Purpose::test));
  Held<T> result(shape);
  for (T& value : result.values) value = random.normal();
  return result;
}

template <typename T>
Held<T> not_numbers(const Shape& shape) {
  Held<T> result(shape);
  std::ranges::fill(result.values, std::numeric_limits<T>::quiet_NaN());
  return result;
}

template <typename T>
bool all_numbers(const Held<T>& held) {
  return std::ranges::none_of(held.values, [](T value) { return std::isnan(value); });
}

std::vector<Conv2dProblem> problems(DType dtype) {
  std::vector<Conv2dProblem> result;
  for (const std::int64_t stride : {1, 2})
    for (const std::int64_t kernel : {1, 3}) {
      for (const std::int64_t in : {3, 4, 8, 12, 16, 32})
        for (const std::int64_t out : {4, 8, 20, 32})
          result.push_back({dtype, 6, 16, 16, in, out, kernel, kernel, stride, kernel / 2, 1});
      // The CPU's own paths: many filters on few cells, some of which no filter sees.
      for (const std::int64_t size : {1, 2, 3})
        result.push_back({dtype, 6, size, size, 256, 260, kernel, kernel, stride, kernel / 2, 1});
    }
  for (const std::int64_t stride : {1, 2, 3})
    for (const std::int64_t kernel : {1, 3, 5})
      for (const std::int64_t channels : {4, 12, 40})
        result.push_back(
            {dtype, 2, 9, 7, channels, channels, kernel, kernel, stride, kernel / 2, channels});
  // Filters that several threads sum up.
  for (const std::int64_t kernel : {3, 5})
    result.push_back({dtype, 6, 16, 16, 64, 64, kernel, kernel, 1, kernel / 2, 64});
  return result;
}

template <typename T>
void expect_no_trust(const ContextPtr& context, const Conv2dProblem& p) {
  Backend& backend = context->backend();
  Held<T> x = random_values<T>({p.n, p.h, p.w, p.c});
  Held<T> w = random_values<T>({p.o, p.kh, p.kw, p.c / p.groups});
  Held<T> dy = random_values<T>({p.n, p.out_h(), p.out_w(), p.o});
  const auto check = [&](const char* name, Pass pass, GradMode mode, const Shape& shape,
                         const auto& run) {
    const std::string told = fmt::format(
        "{} of {} to {} channels in {} groups, {}x{}, kernel {}, stride {}, {}", name, p.c, p.o,
        p.groups, p.h, p.w, p.kh, p.stride, mode == GradMode::overwrite ? "overwriting" : "adding");
    const std::int64_t bytes = backend.conv2d_workspace(p, pass, mode);
    Tensor memory =
        Tensor::full(context, {bytes + static_cast<std::int64_t>(kGuardBytes)}, 0.0, DType::u8);
    auto* data = memory.mutable_view().as<std::byte>();
    std::fill_n(data, bytes, kNotANumber);
    std::fill_n(data + bytes, kGuardBytes, kGuard);
    Held<T> out = mode == GradMode::overwrite ? not_numbers<T>(shape) : random_values<T>(shape);
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

class Conv2dWorkspace : public testing::TestWithParam<DevicePath> {};

TEST_P(Conv2dWorkspace, IsNeitherLeftNorTrusted) {
  for (const int threads : {1, kThreads}) {
    const ContextPtr context = Context::create(GetParam().options(threads));
    for (const Conv2dProblem& p : problems(GetParam().dtype)) {
      if (p.dtype == DType::f64)
        expect_no_trust<double>(context, p);
      else
        expect_no_trust<float>(context, p);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Conv2dWorkspace, testing::ValuesIn(kCpuPaths),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nf::test
