// An experiment of seconds, on generated images.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>

#include "neuroflux/experiment.h"

namespace nf {

/// bp and neuroflux on a small net, with room enough for both.
class SmallExperiment : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              fmt::format("experiment-{}-{}", getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    options_.model = "vgg11";
    options_.width = 0.125;
    options_.data = "generated";
    options_.generated = {
        .count = 120, .height = 12, .width = 12, .channels = 1, .classes = 4, .seed = 5};
    options_.data_options = {.validation_fraction = 0.2, .pad_to = 16, .seed = 3};
    options_.methods = {"bp", "neuroflux"};
    options_.budget = std::int64_t{16} << 20;
    options_.batch = 16;
    options_.training.epochs = 2;
    options_.training.reference_batch = 16;
    options_.training.stop_when_saturated = false;
    options_.device.threads = 1;
    options_.run_folder = folder_;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// neuroflux alone, under a budget and by rules that make several blocks.
  void use_several_blocks() {
    options_.methods = {"neuroflux"};
    options_.budget = std::int64_t{700} << 10;
    options_.rho = 0.2;
    options_.partition = "homogeneous";
    options_.auxiliary = "adaptive";
    options_.units = "each";
  }

  Summary run(const TrainingObserver& observer = {}) const {
    const nn::TrainingData data = load_data(options_);
    return run_experiment(options_, plan_experiment(options_, data_shape(data)), data, observer);
  }

  ExperimentOptions options_;
  std::filesystem::path folder_;
};

}  // namespace nf
