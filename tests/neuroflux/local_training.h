// A small net on generated images, trained by the library.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "neuroflux/local_trainer.h"
#include "nn/models/registry.h"

namespace nf {

/// Under a budget that makes several blocks.
class LocalTraining : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              fmt::format("local-training-{}-{}", getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    training_.epochs = 2;
    training_.seed = 3;
    training_.cache_folder = folder_ / "cache";
    training_.stop_when_saturated = false;
    training_.reference_batch = 16;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  nn::TrainingData data(int loader_threads = 1) const {
    nn::GeneratedOptions train{
        .count = 210, .height = 12, .width = 12, .channels = 1, .classes = 4, .seed = images_};
    nn::GeneratedOptions test = train;
    test.count = 60;
    test.stream = 1;
    return {nn::generate_images(train),
            nn::generate_images(test),
            {.validation_fraction = 0.2,
             .pad_to = 16,
             .crop_padding = 1,
             .seed = 3,
             .threads = loader_threads}};
  }

  Plan make(const nn::TrainingData& data) {
    net_ = nn::make_model("vgg11", {.input = data.sample_shape(), .classes = 4, .width = 0.125});
    PlanOptions options;
    options.budget = budget_;
    options.batch = 16;
    options.train_count = data.train_count();
    options.validation_count = data.validation_count();
    options.test_count = data.test_count();
    options.partition = PartitionRule::homogeneous;
    options.rho = 0.2;
    options.optimizer = training_.optimizer;
    options.cache_views = views_;
    options.format = format_;
    const Plan plan = make_plan(*net_, *rule_, options, device());
    EXPECT_TRUE(plan.fits) << "needs " << plan.minimum_budget;
    return plan;
  }

  ContextOptions device() const { return {.budget = budget_, .threads = 1}; }

  LocalResult train(const TrainingObserver& observer = {}, int loader_threads = 1,
                    const Continuation& continuation = {}) {
    const nn::TrainingData data = this->data(loader_threads);
    const Plan plan = make(data);
    blocks_ = plan.blocks.size();
    const LocalNet local(*net_, *rule_, plan);
    return train_locally(Context::create(device()), local, plan, data, training_, observer,
                         continuation);
  }

  // Flips one byte of a block's training cache.
  void damage_cache(const std::string& block, std::uintmax_t offset) const {
    const std::filesystem::path path =
        training_.cache_folder / fmt::format("train-after-block-{}.data", block);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(file.good()) << path;
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  std::filesystem::path folder_;
  std::int64_t budget_ = 700 << 10;
  std::optional<nn::PixelFormat> format_;  // of the plan
  LocalTrainingOptions training_;
  std::unique_ptr<nn::Model> net_;
  std::shared_ptr<const AuxiliaryRule> rule_ = make_auxiliary_rule("adaptive");
  std::size_t blocks_ = 0;
  std::int64_t views_ = 1;
  std::uint64_t images_ = 5;  // seed of the data set
};

}  // namespace nf
