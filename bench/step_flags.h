// What programs that run training steps have in common: the flags that say which, and random
// images.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/context.h"
#include "nn/data/batch.h"
#include "nn/model.h"
#include "nn/optimizer.h"

namespace nf::bench {

inline constexpr std::int64_t kWarmUpSteps = 3;

/// Small enough that no net diverges on random labels; its value does not change the time.
inline const nn::OptimizerOptions kOptimizer{
    .learning_rate = 1e-3, .momentum = 0.9, .weight_decay = 5e-4};

struct StepFlags {
  std::string model = "resnet18";
  nn::ModelOptions model_options;
  std::int64_t batch = 16;
  std::int64_t steps = 10;
  ContextOptions device;
  bool json = false;

  /// The members above from what `app` parsed. Throws Error for what no parser sees.
  void add_to(CLI::App& app);
  void resolve();
  /// Which steps on what: fields of a JSON object, batch and steps among them.
  nlohmann::json describe(const std::string& model_name, int threads) const;

 private:
  std::vector<std::int64_t> input_{32, 32, 3};
  std::string device_name_ = "cpu";
  bool no_onednn_ = false;
};

/// The same in every run.
class RandomBatch {
 public:
  RandomBatch(std::int64_t size, const Shape& sample, std::int64_t classes);
  nn::HostBatch host() const;

 private:
  Shape sample_;
  std::vector<float> images_;
  std::vector<std::int32_t> labels_;
};

}  // namespace nf::bench
