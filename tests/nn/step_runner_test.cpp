// Replayed steps against steps made call by call: the same bits, the same memory.
#include "nn/step_runner.h"

#include <cmath>
#include <limits>

#include "engine/memory/trace.h"
#include "engine/random.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using test::DevicePath;

constexpr std::int64_t kBatch = 3, kRest = 2;

struct NetCase {
  std::string name;
  OptimizerOptions optimizer;
  double dropout = 0.0;
  double label_smoothing = 0.0;
  const char* model = "vgg11";
};

std::unique_ptr<Model> make_net(const NetCase& net) {
  return make_model(net.model, {.input = {32, 32, 1}, .width = 0.0625, .dropout = net.dropout});
}

/// Batches that differ from step to step.
class VaryingImages {
 public:
  void next(std::int64_t size) {
    images.resize(static_cast<std::size_t>(size * 32 * 32));
    labels.resize(static_cast<std::size_t>(size));
    for (float& value : images) value = random_.normal();
    for (std::int32_t& label : labels) label = static_cast<std::int32_t>(random_.below(10));
  }
  HostBatch host() const {
    return {.size = std::ssize(labels),
            .sample = {32, 32, 1},
            .images = images.data(),
            .labels = labels.data()};
  }
  std::vector<float> images;
  std::vector<std::int32_t> labels;

 private:
  RandomStream random_{random_key(5, Purpose::test)};
};

/// What varies: the rate, as a schedule has it, and dropout's key.
StepOptions options_of(int step, const NetCase& net) {
  return {.rate_factor = 1.0 - 0.03 * step,
          .label_smoothing = net.label_smoothing,
          .dropout_key = random_key(3, Purpose::dropout, static_cast<std::uint64_t>(step))};
}

struct Outcome {
  std::vector<double> losses;
  std::vector<std::int64_t> correct;
  StateDict state;  // with running statistics
  std::int64_t replays = 0;
};

Outcome train(const DevicePath& path, const NetCase& net, bool graphs,
              const std::vector<std::int64_t>& sizes) {
  ContextOptions device = path.options(1);
  device.graphs = graphs;
  const std::unique_ptr<Model> model = make_net(net);
  BpTrainer trainer(Context::create(device), *model, net.optimizer, 1);
  VaryingImages batch;
  Outcome outcome;
  for (int step = 0; step < static_cast<int>(sizes.size()); ++step) {
    const std::int64_t size = sizes[static_cast<std::size_t>(step)];
    batch.next(size);
    const StepResult result = trainer.train(batch.host(), options_of(step, net));
    outcome.losses.push_back(result.loss);
    outcome.correct.push_back(result.correct);
  }
  outcome.replays = trainer.replays();
  model->save(outcome.state);
  return outcome;
}

void expect_same(const Outcome& actual, const Outcome& expected) {
  EXPECT_EQ(actual.losses, expected.losses);
  EXPECT_EQ(actual.correct, expected.correct);
  ASSERT_EQ(actual.state.size(), expected.state.size());
  for (const auto& [name, value] : expected.state)
    EXPECT_EQ(actual.state.at(name).values, value.values) << name;
}

/// Full batches, a short one, full ones again: as two epochs and a bit.
const std::vector<std::int64_t> kEpochs{3, 3, 3, 3, 3, 3, 3, 3, 3,     kRest, 3,
                                        3, 3, 3, 3, 3, 3, 3, 3, kRest, 3};

class StepRunnerBits : public ::testing::TestWithParam<std::tuple<DevicePath, NetCase>> {};

TEST_P(StepRunnerBits, AreThoseOfStepsMadeCallByCall) {
  const auto& [path, net] = GetParam();
  NF_SKIP_WITHOUT_DEVICE(path);
  const Outcome replayed = train(path, net, true, kEpochs);
  const Outcome eager = train(path, net, false, kEpochs);
  EXPECT_EQ(eager.replays, 0);
  // All but the first of each size, which warm up.
  EXPECT_EQ(replayed.replays, static_cast<std::int64_t>(kEpochs.size()) - 2);
  expect_same(replayed, eager);
}

class StepReplays : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
  ContextOptions device() const {
    ContextOptions options = GetParam().options(1);
    options.graphs = true;
    return options;
  }
  const NetCase net_{"", {.learning_rate = 0.01, .max_gradient_norm = 1.0}, 0.5};
};

TEST_P(StepReplays, ReservesWhatThePlannersDeviceDoes) {
  OptimizerOptions optimizer = net_.optimizer;
  const auto peaks = [&](const ContextPtr& context) {
    const std::unique_ptr<Model> model = make_net(net_);
    BpTrainer trainer(context, *model, optimizer, 1);
    VaryingImages batch;
    std::vector<std::pair<std::int64_t, std::int64_t>> result;
    for (const std::int64_t size : {kBatch, kBatch, kBatch, kRest, kBatch}) {
      batch.next(size);
      context->pool().reset_peak();
      trainer.train(batch.host(), {});
      const PoolStats stats = context->pool().stats();
      result.emplace_back(stats.peak_live, stats.peak_reserved);
    }
    EXPECT_EQ(trainer.replays(), context->is_meta() ? 0 : 3);
    return result;
  };
  const auto measured = peaks(Context::create(device()));
  EXPECT_EQ(peaks(make_meta_context(device())), measured);
  EXPECT_EQ(measured[0], measured[2]);
  EXPECT_LT(measured[3].first, measured[2].first);
  optimizer.max_gradient_norm = 0;
  optimizer.update = UpdateMoment::immediate;
  const auto immediate = peaks(Context::create(device()));
  EXPECT_EQ(peaks(make_meta_context(device())), immediate);
  EXPECT_EQ(immediate[0], immediate[2]);
  EXPECT_LT(immediate[2].first, measured[2].first);
}

// The host looks at the gradients of each step, which no replay lets it do.
TEST_P(StepReplays, AreNotMadeWhereGradientsAreChecked) {
  NetCase net = net_;
  const std::vector<std::int64_t> sizes(4, kBatch);
  EXPECT_GT(train(GetParam(), net, true, sizes).replays, 0);
  net.optimizer.check_finite = true;
  EXPECT_EQ(train(GetParam(), net, true, sizes).replays, 0);
}

// A budget of exactly the predicted peak is enough for captures and replays too.
TEST_P(StepReplays, FitsTheLeastBudgetOfStepsMadeCallByCall) {
  const auto run = [&](const ContextPtr& context) {
    const std::unique_ptr<Model> model = make_net(net_);
    BpTrainer trainer(context, *model, net_.optimizer, 1);
    VaryingImages batch;
    batch.next(kBatch);
    for (int step = 0; step < 3; ++step) trainer.train(batch.host(), {});
    return trainer.replays();
  };
  ContextOptions options = device();
  options.workspace_cap = workspace_cap(options);
  const ContextPtr meta = make_meta_context(options);
  run(meta);
  options.budget = meta->pool().stats().peak_reserved;
  EXPECT_EQ(run(Context::create(options)), 2);
}

// Whoever holds memory between two steps moves what the next one is granted, though not
// necessarily its batch.
TEST_P(StepReplays, NoticesThatAddressesWouldDiffer) {
  const auto run = [&](bool graphs, std::int64_t* replays) {
    ContextOptions options = device();
    options.graphs = graphs;
    const ContextPtr context = Context::create(options);
    const std::unique_ptr<Model> model = make_net(net_);
    BpTrainer trainer(context, *model, net_.optimizer, 1);
    VaryingImages batch;
    std::vector<double> losses;
    std::vector<Tensor> held;
    for (int step = 0; step < 8; ++step) {
      if (step == 3 || step == 5) {
        const Tensor room_for_the_batch = Tensor::empty(context, {5 * kBatch, 16, 16});
        held.push_back(Tensor::full(context, {256}, step));
      }
      if (step == 6) held.erase(held.begin());
      batch.next(kBatch);
      losses.push_back(trainer.train(batch.host(), options_of(step, net_)).loss);
    }
    for (const Tensor& tensor : held)
      for (const float value : tensor.to_host<float>()) EXPECT_EQ(value, 5.0F);
    *replays = trainer.replays();
    return losses;
  };
  std::int64_t replays = 0, none = 0;
  EXPECT_EQ(run(true, &replays), run(false, &none));
  EXPECT_EQ(replays, 4);  // 1 and 2, 4, 7: captured anew behind steps 3, 5 and 6
  EXPECT_EQ(none, 0);
}

class NotFinite : public ::testing::TestWithParam<std::tuple<DevicePath, double, UpdateMoment>> {};

TEST_P(NotFinite, ALossOfNanChangesNoParameter) {
  const auto& [path, max_gradient_norm, update] = GetParam();
  NF_SKIP_WITHOUT_DEVICE(path);
  ContextOptions device = path.options(1);
  device.graphs = true;
  const NetCase net{
      "", {.learning_rate = 0.01, .max_gradient_norm = max_gradient_norm, .update = update}};
  const std::unique_ptr<Model> model = make_net(net);
  BpTrainer trainer(Context::create(device), *model, net.optimizer, 1);
  VaryingImages batch;
  for (int step = 0; step < 3; ++step) {
    batch.next(kBatch);
    trainer.train(batch.host(), {});
  }
  ASSERT_EQ(trainer.replays(), 2);
  const auto parameters = [&] {
    std::vector<std::vector<float>> values;
    for (const Parameter* parameter : model->parameters())
      if (!parameter->buffer) values.push_back(parameter->value.to_host<float>());
    return values;
  };
  const auto before = parameters();
  batch.images[7] = std::numeric_limits<float>::infinity();
  try {
    trainer.train(batch.host(), {});
    FAIL() << "a loss of NaN was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the loss of vgg11 is "), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(trainer.replays(), 3);
  EXPECT_EQ(parameters(), before);
}

TEST_P(StepReplays, IsCallByCallWhileATraceIsKept) {
  const ContextPtr context = Context::create(device());
  const std::unique_ptr<Model> model = make_net(net_);
  BpTrainer trainer(context, *model, net_.optimizer, 1);
  VaryingImages batch;
  batch.next(kBatch);
  MemoryTrace trace;
  context->pool().set_trace(&trace);
  for (int step = 0; step < 3; ++step) trainer.train(batch.host(), {});
  EXPECT_EQ(trainer.replays(), 0);
  context->pool().set_trace(nullptr);
  for (int step = 0; step < 2; ++step) trainer.train(batch.host(), {});
  EXPECT_EQ(trainer.replays(), 1);
}

TEST(StepRunnerOptions, TheCpuHasNoGraphs) {
  EXPECT_THROW(Context::create({.budget = 1 << 20, .graphs = true}), Error);
  EXPECT_FALSE(Context::create({.budget = 1 << 20})->graphs());
}

std::vector<DevicePath> gpus() {
  std::vector<DevicePath> paths = test::device_paths();
  std::erase_if(paths, [](const DevicePath& path) { return path.device == DeviceKind::cpu; });
  return paths;
}

const std::vector<NetCase> kNets{
    {"Sgd", {.learning_rate = 0.01, .momentum = 0.9, .nesterov = true}},
    {"SgdClippedDropout", {.learning_rate = 0.05, .max_gradient_norm = 0.5}, 0.5, 0.1},
    {"AdamWDropout",
     {.kind = OptimizerKind::adamw,
      .learning_rate = 1e-3,
      .weight_decay = 0.1,
      .decay_norm_and_bias = false,
      .max_gradient_norm = 2.0},
     0.3},
    {"ResNet", {.learning_rate = 0.01, .momentum = 0.0}, 0.0, 0.0, "resnet18"},
    {"ResNetImmediate",
     {.learning_rate = 0.01, .nesterov = true, .update = UpdateMoment::immediate},
     0.0,
     0.0,
     "resnet18"},
    {"AdamWImmediate",
     {.kind = OptimizerKind::adamw,
      .learning_rate = 1e-3,
      .weight_decay = 0.1,
      .decay_norm_and_bias = false,
      .update = UpdateMoment::immediate},
     0.3}};

INSTANTIATE_TEST_SUITE_P(Gpu, StepRunnerBits,
                         ::testing::Combine(::testing::ValuesIn(gpus()),
                                            ::testing::ValuesIn(kNets)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + std::string("_") +
                                  std::get<1>(info.param).name;
                         });
INSTANTIATE_TEST_SUITE_P(
    Gpu, NotFinite,
    ::testing::Combine(::testing::ValuesIn(gpus()), ::testing::Values(0.0, 1.0),
                       ::testing::Values(UpdateMoment::together, UpdateMoment::immediate)),
    [](const auto& info) {
      return fmt::format("{}{}_{}", std::get<0>(info.param).name,
                         std::get<1>(info.param) > 0 ? "Clipped" : "",
                         to_string(std::get<2>(info.param)));
    });
INSTANTIATE_TEST_SUITE_P(Gpu, StepReplays, ::testing::ValuesIn(gpus()),
                         [](const auto& info) { return std::string(info.param.name); });
// A build with neither device has none.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StepRunnerBits);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NotFinite);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StepReplays);

}  // namespace
}  // namespace nf::nn
