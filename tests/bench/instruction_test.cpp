// That g++'s code for the operators and steps below has not grown: instructions and operands in
// memory are counted one by one and so the same in every run, where times depend on who else is
// there. The problems are small, of the shapes that take each path. oneDNN, whose code is not ours
// and whose choices depend on the processor, is there in whole steps only.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/instruction_set.h"
#include "tests/bench/instruction_counter.h"
#include "tests/bench/workloads.h"

namespace nf::bench {
namespace {

// What stands around a call may add, by other options of the build.
constexpr double kMore = 1.04;
// Fewer are a gain, for which the limits are to be lowered.
constexpr double kFewer = 0.9;
// Either way, for what oneDNN's choices on other processors leave to us.
constexpr double kByChoice = 0.1;

struct Limit {
  std::int64_t instructions, vector_accesses;
};

struct InstructionCase {
  const char* name;
  Limit avx512, avx2;
  Workload (*make)(const ContextPtr& context);
  bool onednn = false;
};

class InstructionCount : public testing::TestWithParam<InstructionCase> {};

TEST_P(InstructionCount, StaysWithinItsLimit) {
#if !defined(NF_INSTRUCTION_LIMITS)
  GTEST_SKIP() << "limits are those of a portable release build by g++ 12 with oneDNN 2.6";
#endif
  const cpu::InstructionSet set = cpu::instruction_set();
  if (set == cpu::InstructionSet::baseline) GTEST_SKIP() << "limits are those of AVX2 and AVX-512";
  if (!can_count_instructions()) GTEST_SKIP() << "no trap behind single instructions here";
  const Limit limit = set == cpu::InstructionSet::avx512 ? GetParam().avx512 : GetParam().avx2;
  const ContextPtr context = Context::create({.threads = 1, .onednn = GetParam().onednn});
  const Workload workload = GetParam().make(context);
  workload.run();  // what only the first one does
  const Instructions found = count_instructions(workload.run);
  fmt::print(
      "{}, {}: {} instructions, limit {}; {} vector operands in memory, limit {}; {} fused "
      "multiply-adds; {} instructions in libraries\n",
      GetParam().name, to_string(set), found.own, limit.instructions, found.vector_accesses,
      limit.vector_accesses, found.multiply_adds, found.elsewhere);
  const double choice = GetParam().onednn ? kByChoice : 0.0;
  const auto expect_within = [=](std::int64_t count, std::int64_t most) {
    EXPECT_LE(static_cast<double>(count), (kMore + choice) * static_cast<double>(most));
    EXPECT_GE(static_cast<double>(count), (kFewer - choice) * static_cast<double>(most))
        << "a gain";
  };
  expect_within(found.own, limit.instructions);
  expect_within(found.vector_accesses, limit.vector_accesses);
}

// What ten more rounds of a loop take, of which each has one `body`.
template <typename Body>
Instructions ten_of(const Body& body) {
  const auto loop = [&](int times) {
    return count_instructions([&] {
      for (int i = 0; i < times; ++i) body();
    });
  };
  const Instructions few = loop(3), more = loop(13);
  return {more.own - few.own, more.vector_accesses - few.vector_accesses,
          more.multiply_adds - few.multiply_adds, more.elsewhere - few.elsewhere};
}

TEST(InstructionCounter, CountsInstructions) {
  if (!can_count_instructions()) GTEST_SKIP() << "no trap behind single instructions here";
  const Instructions one = ten_of([] { asm volatile("nop"); });
  const Instructions three = ten_of([] { asm volatile("nop\n\tnop\n\tnop"); });
  EXPECT_EQ(three.own - one.own, 20);
  EXPECT_EQ(three.elsewhere, 0);
  EXPECT_EQ(three.vector_accesses, 0);
}

#if defined(__x86_64__) && defined(__GNUC__)
TEST(InstructionCounter, KnowsOperandsInMemoryAndMultiplyAdds) {
  if (!can_count_instructions() || !__builtin_cpu_supports("fma"))
    GTEST_SKIP() << "no trap behind single instructions, or none of these instructions";
  alignas(64) const float values[16] = {};
  const auto expect = [](const Instructions& found, std::int64_t accesses, std::int64_t adds) {
    EXPECT_EQ(found.vector_accesses, 10 * accesses);
    EXPECT_EQ(found.multiply_adds, 10 * adds);
  };
  // Two bytes of VEX, three of them, and what has no operands.
  expect(ten_of([&] {
           asm volatile(
               "vmovups (%0), %%ymm0\n\t"
               "vfmadd231ps (%0), %%ymm0, %%ymm1\n\t"
               "vfmadd213ps %%ymm0, %%ymm0, %%ymm1\n\t"
               "vaddps %%ymm0, %%ymm0, %%ymm1\n\t"
               "vzeroupper" ::"r"(values)
               : "xmm0", "xmm1");
         }),
         2, 2);
  if (!__builtin_cpu_supports("avx512f")) return;
  expect(ten_of([&] {
           asm volatile(
               "vfmadd231ps (%0)%{1to16%}, %%zmm0, %%zmm1\n\t"
               "vfmadd132ps %%zmm0, %%zmm0, %%zmm1\n\t"
               "vmovups %%zmm1, %%zmm0\n\t"
               "vmovups (%0), %%zmm0\n\t"
               "vzeroupper" ::"r"(values)
               : "xmm0", "xmm1");
         }),
         2, 2);
}
#endif

// The path itself, of which the backend asks more than a test has time for.
struct DirectProblem {
  explicit DirectProblem(const Conv2dProblem& p)
      : problem(p),
        x(static_cast<std::size_t>(p.n * p.h * p.w * p.c), 0.5F),
        w(static_cast<std::size_t>(p.o * p.kh * p.kw * p.c), 0.25F),
        y(static_cast<std::size_t>(p.n * p.out_h() * p.out_w() * p.o), 0.125F) {}
  Conv2dProblem problem;
  std::vector<float> x, w, y;
};

template <Pass kPass>
Workload direct(const ContextPtr&) {
  const auto all = std::make_shared<DirectProblem>(
      Conv2dProblem{.n = 6, .h = 3, .w = 3, .c = 64, .o = 24, .kh = 3, .kw = 3, .padding = 1});
  return {.run = [all] {
    const cpu::DirectConv2d path{all->problem, 1};
    if constexpr (kPass == Pass::forward)
      path.forward(all->x.data(), all->w.data(), nullptr, all->y.data());
    else if constexpr (kPass == Pass::backward_input)
      path.backward_input(all->y.data(), all->w.data(), all->x.data(), GradMode::overwrite);
    else
      path.backward_weight(all->x.data(), all->y.data(), all->w.data(), GradMode::overwrite);
  }};
}

constexpr Conv2dProblem kWinograd{
    .n = 2, .h = 8, .w = 8, .c = 32, .o = 32, .kh = 3, .kw = 3, .padding = 1};
constexpr Conv2dProblem kDepthwise{
    .n = 1, .h = 8, .w = 8, .c = 32, .o = 32, .kh = 3, .kw = 3, .padding = 1, .groups = 32};
constexpr Conv2dProblem kPointwise{.n = 1, .h = 8, .w = 8, .c = 128, .o = 128, .kh = 1, .kw = 1};

template <const Conv2dProblem& kProblem>
Workload fused(const ContextPtr& context) {
  Conv2dProblem problem = kProblem;
  problem.residual = true;
  problem.activation = Activation::relu6;
  return convolution(context, problem, Pass::forward);
}

template <const Conv2dProblem& kProblem, Pass kPass>
Workload conv(const ContextPtr& context) {
  return convolution(context, kProblem, kPass);
}

const Shape kMaps{1, 8, 8, 64};

template <Workload (*kMake)(const ContextPtr&, const Shape&, bool), bool kBackward>
Workload light(const ContextPtr& context) {
  return kMake(context, kMaps, kBackward);
}

using enum Pass;
constexpr InstructionCase kCases[] = {
    {"direct_forward", {71507, 23316}, {139418, 51804}, direct<forward>},
    {"direct_backward_input", {62986, 15624}, {158061, 45360}, direct<backward_input>},
    {"direct_backward_weight", {59165, 12624}, {147660, 39360}, direct<backward_weight>},
    {"winograd_forward", {106510, 41833}, {179864, 67984}, conv<kWinograd, forward>},
    {"winograd_fused", {109633, 42507}, {185830, 68975}, fused<kWinograd>},
    {"winograd_backward_input", {87208, 24589}, {161966, 51928}, conv<kWinograd, backward_input>},
    {"winograd_backward_weight",
     {109754, 36625},
     {193834, 66869},
     conv<kWinograd, backward_weight>},
    {"depthwise_forward", {27371, 7744}, {27371, 7744}, conv<kDepthwise, forward>},
    {"depthwise_backward_input", {33751, 7744}, {33751, 7744}, conv<kDepthwise, backward_input>},
    {"depthwise_backward_weight", {11114, 1341}, {15755, 2676}, conv<kDepthwise, backward_weight>},
    {"pointwise_forward", {127988, 38442}, {294689, 99328}, conv<kPointwise, forward>},
    {"pointwise_fused", {135232, 40048}, {312657, 102648}, fused<kPointwise>},
    {"pointwise_backward_input",
     {111747, 30210},
     {281791, 93184},
     conv<kPointwise, backward_input>},
    {"pointwise_backward_weight",
     {113625, 29698},
     {285971, 92160},
     conv<kPointwise, backward_weight>},
    {"batch_norm_forward", {14954, 5005}, {14954, 5005}, light<batch_norm, false>},
    {"batch_norm_backward", {22488, 9053}, {22488, 9053}, light<batch_norm, true>},
    {"max_pool_forward", {14343, 2849}, {14343, 2849}, light<max_pool, false>},
    {"max_pool_backward", {20147, 2688}, {20147, 2688}, light<max_pool, true>},
    {"adaptive_avg_pool_forward", {4301, 1345}, {4301, 1345}, light<adaptive_pool, false>},
    {"adaptive_avg_pool_backward", {18672, 2561}, {18672, 2561}, light<adaptive_pool, true>},
    {"sgd",
     {10686, 6912},
     {10686, 6912},
     [](const ContextPtr& c) {
       return sgd(c, {16, 3, 3, 64});
     }},
    {"add", {3346, 1536}, {3346, 1536}, [](const ContextPtr& c) { return add(c, kMaps); }},
    {"cast_to_bf16",
     {9461, 768},
     {9461, 768},
     [](const ContextPtr& c) { return cast(c, kMaps, DType::f32, DType::bf16); }},
    {"cast_from_bf16",
     {3037, 768},
     {3037, 768},
     [](const ContextPtr& c) { return cast(c, kMaps, DType::bf16, DType::f32); }},
    {"step",
     {1130937, 100146},
     {1129568, 100146},
     [](const ContextPtr& c) { return step(c, 0.0625, 1); },
     true},
    {"local_step",
     {318797, 37622},
     {315739, 37622},
     [](const ContextPtr& c) { return local_step(c, 0.0625, 1); },
     true},
};

INSTANTIATE_TEST_SUITE_P(Cpu, InstructionCount, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::bench
