// Training on the GPU's kernels, emulated or on a GPU, against training on the CPU.
#include <algorithm>
#include <cmath>

#include "engine/random.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using test::DevicePath;

constexpr int kSteps = 20;
constexpr std::int64_t kBatch = 6;

struct Run {
  std::string name;
  std::string model;
  ModelOptions options;
  OptimizerOptions optimizer;
  double sharpness = 1e-3;  ///< the bound on the first three losses must be no more
};

std::vector<Run> runs() {
  ModelOptions vgg;
  vgg.width = 0.0625;
  vgg.input = {32, 32, 1};
  ModelOptions colour = vgg;
  colour.input = {32, 32, 3};
  colour.width = 0.25;
  ModelOptions small = vgg;
  small.input = {16, 16, 3};
  const OptimizerOptions sgd{.learning_rate = 0.01, .momentum = 0.9, .nesterov = true};
  const OptimizerOptions slow{.learning_rate = 1e-4, .momentum = 0.9};
  const OptimizerOptions adamw{.kind = OptimizerKind::adamw, .learning_rate = 1e-3};
  return {{"Vgg11", "vgg11", vgg, sgd},
          {"Vgg11AdamW", "vgg11", vgg, adamw},
          {"ResNet18", "resnet18", small, sgd},
          // So many batch norms over so few values are chaotic even at a small rate.
          {"MobileNetV1", "mobilenet_v1", colour, slow, 0.1}};
}

/// The loss of each step. `noise` is the relative size of random errors put on every image.
std::vector<double> losses(const Run& run, const ContextOptions& device, double noise,
                           std::uint64_t noise_seed) {
  const std::unique_ptr<Model> model = make_model(run.model, run.options);
  BpTrainer trainer(Context::create(device), *model, run.optimizer, 1);
  RandomStream random(random_key(7, Purpose::test)), errors(random_key(noise_seed, Purpose::test));
  std::vector<double> result;
  for (int step = 0; step < kSteps; ++step) {
    std::vector<float> images(static_cast<std::size_t>(kBatch * run.options.input.numel()));
    std::vector<std::int32_t> labels(static_cast<std::size_t>(kBatch));
    for (std::int32_t& label : labels) label = static_cast<std::int32_t>(random.below(10));
    for (float& value : images) {
      const double error = noise * (2.0 * static_cast<double>(errors.uniform()) - 1.0);
      value = static_cast<float>(static_cast<double>(random.normal()) * (1.0 + error));
    }
    result.push_back(trainer
                         .train({.size = kBatch,
                                 .sample = run.options.input,
                                 .images = images.data(),
                                 .labels = labels.data()},
                                {})
                         .loss);
  }
  return result;
}

class DeviceTraining : public ::testing::TestWithParam<std::tuple<DevicePath, Run>> {};

// Two correct devices round differently, and training amplifies that. How much, the CPU tells: it
// trains with images that are off by some units in the last place, and by no more than ten times
// what came of that, at that step or before, may a device be off.
TEST_P(DeviceTraining, LossesAreTheCpus) {
  const auto& [path, run] = GetParam();
  NF_SKIP_WITHOUT_DEVICE(path);
  ContextOptions cpu = test::kCpuPaths[0].options(1);
  const std::vector<double> expected = losses(run, cpu, 0, 0);
  std::vector<std::vector<double>> disturbed;
  for (std::uint64_t seed = 1; seed <= 3; ++seed)
    disturbed.push_back(losses(run, cpu, 0x1p-21, seed));
  const std::vector<double> actual = losses(run, path.options(1), 0, 0);
  double spread = 0x1p-23;
  for (std::size_t step = 0; step < expected.size(); ++step) {
    for (const std::vector<double>& other : disturbed)
      spread = std::max(spread, std::abs(other[step] - expected[step]));
    EXPECT_LE(std::abs(actual[step] - expected[step]), 10 * spread)
        << "step " << step << ": " << actual[step] << ", the CPU has " << expected[step];
    if (step < 3) {
      EXPECT_LE(10 * spread, run.sharpness) << "step " << step << ": the bound says nothing";
    }
  }
  EXPECT_LT(expected.back(), 2 * expected.front());
}

INSTANTIATE_TEST_SUITE_P(Gpu, DeviceTraining,
                         ::testing::Combine(::testing::ValuesIn([] {
                                              std::vector<DevicePath> paths = test::device_paths();
                                              std::erase_if(paths, [](const DevicePath& path) {
                                                return path.device == DeviceKind::cpu;
                                              });
                                              return paths;
                                            }()),
                                            ::testing::ValuesIn(runs())),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + std::string("_") +
                                  std::get<1>(info.param).name;
                         });
// A build with neither has none.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceTraining);

}  // namespace
}  // namespace nf::nn
