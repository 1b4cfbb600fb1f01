// That no operator and no training step has become slow, whatever else the machine does: each takes
// turns with a reference, a matrix product of as many FLOPs or a plain loop over as many bytes, and
// the median of the ratios counts, in processor time of one thread, which others' load is no part
// of. Instructions are not counted: perf needs rights that few machines give, valgrind lacks
// AVX-512. Nor is memcpy the measure: it and our loops suffer by different factors from who shares
// the caches.
#include <gtest/gtest.h>
#include <time.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <functional>
#include <stop_token>
#include <thread>

#include "bench/reference.h"
#include "neuroflux/local_net.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

constexpr int kTurns = 21;
constexpr double kTurnSeconds = 0.5e-3;  // at least, of the reference
constexpr int kTries = 5;  // one within the limit is enough: what is slow is slow in all
constexpr GradMode kOverwrite = GradMode::overwrite;

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double seconds_of(const std::function<void()>& run, int times) {
  const double start = thread_seconds();
  for (int i = 0; i < times; ++i) run();
  return (thread_seconds() - start) / times;
}

/// What is measured: something to run again and again, and what it is measured against.
struct Race {
  std::function<void()> run;
  std::function<void()> reference;
};

struct SpeedCase {
  const char* name;
  /// Of (time) / (time of the reference), between the most that the portable build took on a busy
  /// machine and twice the least that it took there: 1.3 to 1.6 times what is usual. Zen 4's of
  /// wide convolutions and steps are from before Winograd's.
  double zen4_limit, zen5_limit;
  Race (*make)(const ContextPtr& context);
};

double ratio(const Race& race) {
  race.run();
  race.reference();
  const auto times = static_cast<int>(std::max(1.0, kTurnSeconds / seconds_of(race.reference, 1)));
  std::vector<double> ratios;
  for (int i = 0; i < kTurns; ++i) {
    const double reference = seconds_of(race.reference, times);
    ratios.push_back(seconds_of(race.run, times) / reference);
  }
  std::nth_element(ratios.begin(), ratios.begin() + kTurns / 2, ratios.end());
  return ratios[kTurns / 2];
}

/// Keeps all other cores at work: loops with the caches and units of a core to themselves gain more
/// or less than their reference, by up to a half.
class Company {
 public:
  Company() {
    const unsigned cores = std::max(2U, std::thread::hardware_concurrency());
    for (unsigned i = 1; i < cores; ++i) threads_.emplace_back(work);
  }

 private:
  static void work(const std::stop_token& stop) {
    std::vector<float> values(1024, 0.5F);
    while (!stop.stop_requested())
      for (float& value : values) value = std::max(0.5F * value - 0.25F, 0.125F);
  }
  std::vector<std::jthread> threads_;
};

class Speed : public testing::TestWithParam<SpeedCase> {};

/// AMD's cores whose limits were measured; others have other ratios.
enum class Processor { zen4, zen5, other };

Processor processor() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __builtin_cpu_init();
  if (!__builtin_cpu_is("amd") || !__builtin_cpu_supports("avx512f") ||
      __get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0)
    return Processor::other;
  // Base and extended family of CPUID's leaf 1.
  const unsigned family = (eax >> 8 & 0xF) + (eax >> 20 & 0xFF);
  if (family == 0x19) return Processor::zen4;
  if (family == 0x1A) return Processor::zen5;
#endif
  return Processor::other;
}

TEST_P(Speed, StaysWithinItsLimit) {
  const Processor here = processor();
  if (here == Processor::other) GTEST_SKIP() << "limits are known for Zen 4 and Zen 5 alone";
  const double limit = here == Processor::zen4 ? GetParam().zen4_limit : GetParam().zen5_limit;
  const ContextPtr context = Context::create({.threads = 1});
  const Race race = GetParam().make(context);
  const Company company;
  double least = ratio(race);
  for (int i = 1; i < kTries && least > limit; ++i) least = std::min(least, ratio(race));
  RecordProperty("ratio", fmt::format("{:.2f}", least));
  fmt::print("{}: {:.2f} times the reference, limit {:.2f}\n", GetParam().name, least, limit);
  EXPECT_LE(least, limit) << "times the reference";
}

std::function<void()> product_of(const ContextPtr& context, double flops) {
  // (N, 512) by (512, 512), of the shape that convolutions make of themselves.
  const auto rows = static_cast<std::int64_t>(flops / (2.0 * 512 * 512));
  auto product = std::make_shared<ReferenceProduct>(
      context, LinearProblem{.n = std::max<std::int64_t>(rows, 1), .i = 512, .o = 512});
  return [product] { product->run(); };
}

// Half of them read and half written.
std::function<void()> loop_over(std::int64_t bytes) {
  const auto count = static_cast<std::size_t>(bytes / 8);
  const auto from = std::make_shared<std::vector<float>>(count, 0.5F);
  const auto to = std::make_shared<std::vector<float>>(count);
  return [from, to] {
    const float* x = from->data();
    float* y = to->data();
    for (std::size_t i = 0; i < to->size(); ++i) y[i] = std::max(1.5F * x[i] - 0.25F, 0.0F);
  };
}

std::shared_ptr<Scratch> scratch_of(const ContextPtr& context, std::int64_t bytes) {
  return std::make_shared<Scratch>(context, bytes);
}

Tensor empty(const ContextPtr& context, const Shape& shape, DType dtype = DType::f32) {
  return Tensor::empty(context, shape, dtype);
}

// Convolutions. `bytes` compares by what must be moved.
enum class Against { flops, bytes };

Race convolution(const ContextPtr& context, const Conv2dProblem& p, Pass pass, Against against) {
  Tensor x = random_tensor(context, {p.n, p.h, p.w, p.c});
  Tensor w = random_tensor(context, {p.o, p.kh, p.kw, p.c / p.groups});
  Tensor y = random_tensor(context, {p.n, p.out_h(), p.out_w(), p.o});
  const auto scratch =
      scratch_of(context, context->backend().conv2d_workspace(p, pass, kOverwrite));
  const double flops = 2.0 * static_cast<double>(y.numel() * p.kh * p.kw * p.c / p.groups);
  const std::int64_t bytes = x.bytes() + w.bytes() + y.bytes();
  return {[=]() mutable {
            Backend& backend = x.backend();
            if (pass == Pass::forward)
              backend.conv2d_forward(p, x.view(), w.view(), {}, {}, y.mutable_view(), *scratch);
            else if (pass == Pass::backward_input)
              backend.conv2d_backward_input(p, y.view(), w.view(), x.mutable_view(), kOverwrite,
                                            *scratch);
            else
              backend.conv2d_backward_weight(p, x.view(), y.view(), w.mutable_view(), kOverwrite,
                                             *scratch);
          },
          against == Against::flops ? product_of(context, flops) : loop_over(bytes)};
}

constexpr Conv2dProblem kWide{
    .n = 4, .h = 32, .w = 32, .c = 64, .o = 64, .kh = 3, .kw = 3, .padding = 1};
constexpr Conv2dProblem kDeep{
    .n = 8, .h = 8, .w = 8, .c = 256, .o = 256, .kh = 3, .kw = 3, .padding = 1};
constexpr Conv2dProblem kMany{
    .n = 16, .h = 8, .w = 8, .c = 256, .o = 256, .kh = 3, .kw = 3, .padding = 1};
constexpr Conv2dProblem kPointwise{.n = 16, .h = 8, .w = 8, .c = 256, .o = 256, .kh = 1, .kw = 1};
constexpr Conv2dProblem kDepthwise{
    .n = 1, .h = 16, .w = 16, .c = 128, .o = 128, .kh = 3, .kw = 3, .padding = 1, .groups = 128};

template <const Conv2dProblem& kProblem, Pass kPass, Against kAgainst = Against::flops>
Race conv(const ContextPtr& context) {
  return convolution(context, kProblem, kPass, kAgainst);
}

// What only moves memory, on maps that stay in a core's own cache: main memory is shared with
// others.
const Shape kMaps{1, 32, 32, 64};

template <bool kBackward>
Race batch_norm(const ContextPtr& context) {
  const BatchNormProblem p{.rows = 32 * 32, .channels = 64, .activation = Activation::relu};
  const Tensor x = random_tensor(context, kMaps), dy = random_tensor(context, kMaps);
  const Tensor gamma = random_tensor(context, {64}), beta = random_tensor(context, {64});
  Tensor y = empty(context, kMaps), mean = empty(context, {64}), invstd = empty(context, {64});
  Tensor running_mean = random_tensor(context, {64});
  Tensor running_var = Tensor::full(context, {64}, 1.0);
  Tensor dgamma = empty(context, {64}), dbeta = empty(context, {64});
  const auto scratch = scratch_of(context, context->backend().batch_norm_workspace(p));
  const std::function<void()> forward = [=]() mutable {
    x.backend().batch_norm_forward_train(p, x.view(), {}, gamma.view(), beta.view(),
                                         running_mean.mutable_view(), running_var.mutable_view(),
                                         y.mutable_view(), mean.mutable_view(),
                                         invstd.mutable_view(), *scratch);
  };
  if (!kBackward) return {forward, loop_over(x.bytes() + y.bytes())};
  forward();
  return {[=]() mutable {
            x.backend().batch_norm_backward(p, x.view(), {}, dy.view(), gamma.view(), beta.view(),
                                            mean.view(), invstd.view(), y.mutable_view(), {},
                                            dgamma.mutable_view(), dbeta.mutable_view(), kOverwrite,
                                            *scratch);
          },
          loop_over(x.bytes() + dy.bytes() + y.bytes())};
}

template <bool kBackward>
Race max_pool(const ContextPtr& context) {
  const Pool2dProblem p{.n = 1, .h = 32, .w = 32, .c = 64, .kernel = 2, .stride = 2};
  Tensor x = random_tensor(context, kMaps);
  Tensor y = random_tensor(context, {1, 16, 16, 64});
  Tensor argmax = Tensor::full(context, y.shape(), 3, DType::u8);
  const auto loop = loop_over(x.bytes() + y.bytes() + argmax.bytes());
  if (kBackward)
    return {[=]() mutable {
              x.backend().max_pool_backward(p, argmax.view(), y.view(), x.mutable_view(),
                                            kOverwrite);
            },
            loop};
  return {[=]() mutable {
            x.backend().max_pool_forward(p, x.view(), y.mutable_view(), argmax.mutable_view());
          },
          loop};
}

template <bool kBackward>
Race adaptive_pool(const ContextPtr& context) {
  Tensor x = random_tensor(context, kMaps);
  Tensor y = random_tensor(context, {1, 8, 8, 64});
  const auto loop = loop_over(x.bytes() + y.bytes());
  if (kBackward)
    return {[=]() mutable {
              x.backend().adaptive_avg_pool_backward(y.view(), x.mutable_view(), kOverwrite);
            },
            loop};
  return {[=]() mutable { x.backend().adaptive_avg_pool_forward(x.view(), y.mutable_view()); },
          loop};
}

Race sgd(const ContextPtr& context) {
  const Shape shape{64, 3, 3, 64};
  Tensor w = random_tensor(context, shape), momentum = random_tensor(context, shape);
  const Tensor grad = random_tensor(context, shape);
  return {[=]() mutable {
            const SgdParameter parameter{w.mutable_view(), grad.view(), momentum.mutable_view()};
            w.backend().sgd({.learning_rate = 1e-6, .momentum = 0.9, .weight_decay = 5e-4},
                            {&parameter, 1});
          },
          loop_over(5 * w.bytes())};
}

Race add(const ContextPtr& context) {
  const Tensor a = random_tensor(context, kMaps), b = random_tensor(context, kMaps);
  Tensor out = empty(context, kMaps);
  return {[=]() mutable { a.backend().add(a.view(), b.view(), out.mutable_view()); },
          loop_over(3 * a.bytes())};
}

// To what the activation cache keeps and back.
template <DType kTo>
Race cast(const ContextPtr& context) {
  const DType from = kTo == DType::f32 ? DType::bf16 : DType::f32;
  const Tensor x = Tensor::full(context, kMaps, 1.25, from);
  Tensor y = empty(context, kMaps, kTo);
  return {[=]() mutable { x.backend().cast(x.view(), y.mutable_view()); },
          loop_over(x.bytes() + y.bytes())};
}

// Steps: what stands around the operators is in them as well.
struct Images {
  explicit Images(const Shape& sample)
      : images(static_cast<std::size_t>(8 * sample.numel()), 0.5F), labels(8, 1) {
    batch = {.size = 8, .sample = sample, .images = images.data(), .labels = labels.data()};
  }
  std::vector<float> images;
  std::vector<std::int32_t> labels;
  nn::HostBatch batch;
};

const nn::OptimizerOptions kOptimizer{.learning_rate = 1e-6};

struct WholeNet {
  explicit WholeNet(const ContextPtr& context) : trainer(context, *model, kOptimizer, 0) {}
  std::unique_ptr<nn::Model> model = nn::make_model("vgg11", {.width = 0.25});
  Images images{{32, 32, 3}};
  nn::BpTrainer trainer;
};

Race step(const ContextPtr& context) {
  const auto net = std::make_shared<WholeNet>(context);
  const auto flops = static_cast<double>(net->model->flops(net->model->input_shape(8)));
  return {[=] { net->trainer.train(net->images.batch, {}); }, product_of(context, 3 * flops)};
}

struct OneUnit {
  explicit OneUnit(const ContextPtr& context)
      : block(context, {{"conv2", &model->unit(1), auxiliary.get()}}, images.batch.sample,
              kOptimizer, 0) {}
  std::unique_ptr<nn::Model> model = nn::make_model("vgg11", {.width = 0.5});
  std::unique_ptr<nn::Module> auxiliary =
      make_auxiliary(*model, *make_auxiliary_rule("adaptive"), 1, 64);
  Images images{model->unit_input_shape(1, 8).sample()};
  LocalBlock block;
};

Race local_step(const ContextPtr& context) {
  const auto unit = std::make_shared<OneUnit>(context);
  const nn::Model& model = *unit->model;
  const auto flops = static_cast<double>(2 * model.unit(1).flops(model.unit_input_shape(1, 8)) +
                                         3 * unit->auxiliary->flops(model.unit_input_shape(2, 8)));
  return {[=] { unit->block.train(unit->images.batch, {}); }, product_of(context, flops)};
}

using enum Pass;
constexpr SpeedCase kCases[] = {
    {"conv2d_forward_64x32x32", 1.40, 0.78, conv<kWide, forward>},
    {"conv2d_backward_input_64x32x32", 1.45, 0.78, conv<kWide, backward_input>},
    {"conv2d_backward_weight_64x32x32", 1.55, 0.7, conv<kWide, backward_weight>},
    {"conv2d_forward_256x8x8", 1.35, 1.6, conv<kDeep, forward>},
    {"conv2d_backward_input_256x8x8", 1.35, 1.7, conv<kDeep, backward_input>},
    {"conv2d_backward_weight_256x8x8", 1.60, 1.65, conv<kDeep, backward_weight>},
    {"conv2d_forward_16x256x8x8", 1.35, 0.95, conv<kMany, forward>},
    {"conv2d_backward_input_16x256x8x8", 1.35, 0.95, conv<kMany, backward_input>},
    {"conv2d_backward_weight_16x256x8x8", 1.60, 0.95, conv<kMany, backward_weight>},
    {"pointwise_forward", 1.55, 1.7, conv<kPointwise, forward>},
    {"pointwise_backward_input", 1.55, 1.7, conv<kPointwise, backward_input>},
    {"pointwise_backward_weight", 1.70, 1.75, conv<kPointwise, backward_weight>},
    {"depthwise_forward", 0.62, 0.66, conv<kDepthwise, forward, Against::bytes>},
    {"depthwise_backward_input", 0.6, 0.6, conv<kDepthwise, backward_input, Against::bytes>},
    {"depthwise_backward_weight", 0.46, 0.48, conv<kDepthwise, backward_weight, Against::bytes>},
    {"batch_norm_forward", 0.42, 0.6, batch_norm<false>},
    {"batch_norm_backward", 0.48, 0.7, batch_norm<true>},
    {"max_pool_forward", 0.68, 1.0, max_pool<false>},
    {"max_pool_backward", 1.25, 2.1, max_pool<true>},
    {"adaptive_avg_pool_forward", 0.3, 0.46, adaptive_pool<false>},
    {"adaptive_avg_pool_backward", 1.55, 2.4, adaptive_pool<true>},
    {"sgd", 0.105, 0.135, sgd},
    {"add", 0.16, 0.2, add},
    {"cast_to_bf16", 0.95, 1.45, cast<DType::bf16>},
    {"cast_from_bf16", 0.2, 0.23, cast<DType::f32>},
    {"step", 2.10, 2.0, step},
    {"local_step", 1.70, 1.2, local_step},
};

INSTANTIATE_TEST_SUITE_P(Cpu, Speed, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::bench
