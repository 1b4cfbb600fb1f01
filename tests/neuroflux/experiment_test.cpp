#include "neuroflux/experiment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "neuroflux/cache_order.h"
#include "neuroflux/comparison.h"
#include "neuroflux/disk_file.h"
#include "neuroflux/run_caches.h"
#include "neuroflux/run_record.h"
#include "neuroflux/time_model.h"
#include "tests/neuroflux/small_experiment.h"
#include "tests/support/expect.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::error_text;
using testing::HasSubstr;

/// A method of no net, whose training is what the test says.
class ToldMethod : public Method {
 public:
  ToldMethod(const char* name, std::function<void()> train) : train_(std::move(train)) {
    planned_.name = name;
    planned_.fits = true;
  }
  void trace(const ContextPtr&, const nn::OptimizerOptions&, MemoryTrace&) const override {}
  void run(const MethodRun&, MethodSummary& summary) const override {
    train_();
    summary.total_seconds = 1.0;
  }

 private:
  std::function<void()> train_;
};

class ToldExperiment : public testing::Test {
 protected:
  void SetUp() override {
    options_.run_folder =
        fs::path(testing::TempDir()) /
        fmt::format("told-{}-{}", getpid(),
                    testing::UnitTest::GetInstance()->current_test_info()->name());
    options_.config_text = "seed = 0\n";
  }
  void TearDown() override { fs::remove_all(options_.run_folder); }

  /// Method "first", then "second".
  Summary run() {
    ExperimentPlan plan;
    plan.summary.input = {12, 12, 1};
    plan.summary.classes = 4;
    plan.methods.push_back(std::make_unique<ToldMethod>("first", [this] {
      ++first_runs_;
      first_();
    }));
    plan.methods.push_back(std::make_unique<ToldMethod>("second", [this] { second_(); }));
    for (const auto& method : plan.methods) plan.summary.methods.push_back(method->planned());
    const nn::GeneratedOptions images{
        .count = 40, .height = 12, .width = 12, .channels = 1, .classes = 4};
    const nn::TrainingData data(nn::generate_images(images), nn::generate_images(images), {});
    return run_experiment(options_, std::move(plan), data, {});
  }
  Summary left() const { return read_runs(options_.run_folder).front().summary; }

  ExperimentOptions options_;
  int first_runs_ = 0;
  std::function<void()> first_ = [] { throw Diverged("the loss is nan"); }, second_ = [] {};
};

TEST_F(ToldExperiment, OthersGoOnBehindAMethodThatDiverges) {
  const Summary summary = run();
  ASSERT_EQ(summary.methods.size(), 2U);
  EXPECT_TRUE(summary.methods[0].diverged);
  EXPECT_EQ(summary.methods[0].error, "the loss is nan");
  EXPECT_FALSE(summary.methods[0].total_seconds);
  EXPECT_EQ(summary.methods[1].error, "");
  EXPECT_EQ(summary.methods[1].total_seconds, 1.0);
  EXPECT_EQ(to_json(left()), to_json(summary));
  EXPECT_TRUE(is_finished(options_.run_folder));
  EXPECT_THAT(to_table(summary), HasSubstr("first diverged: the loss is nan\n"));
}

TEST_F(ToldExperiment, OtherFailuresEndIt) {
  first_ = [] { throw Error("a broken rule"); };
  EXPECT_THROW(run(), Error);
  const Summary summary = left();
  EXPECT_FALSE(summary.methods[0].diverged);
  EXPECT_EQ(summary.methods[0].error, "a broken rule");
  EXPECT_EQ(summary.methods[1].error, "not begun");
  EXPECT_FALSE(is_finished(options_.run_folder));
}

TEST_F(ToldExperiment, WhatDivergedIsNotTrainedAgainByARunThatGoesOn) {
  second_ = [] { throw Error("no space left"); };
  EXPECT_THROW(run(), Error);
  EXPECT_FALSE(is_finished(options_.run_folder));
  second_ = [] {};
  options_.resume = true;
  const Summary summary = run();
  EXPECT_EQ(first_runs_, 1);
  EXPECT_TRUE(summary.methods[0].diverged);
  EXPECT_EQ(summary.methods[0].error, "the loss is nan");
  EXPECT_EQ(summary.methods[1].total_seconds, 1.0);
}

// What is neither a step nor an evaluation, such as a checkpoint, is time all the same.
TEST_F(SmallExperiment, TheTotalIsAllOfAMethodsTime) {
  static constexpr double kPause = 0.1;
  const Summary summary = run({.on_epoch = [](const Stage&, const nn::EpochMetrics& metrics) {
    if (metrics.epoch == 1) std::this_thread::sleep_for(std::chrono::duration<double>(kPause));
  }});
  for (const MethodSummary& method : summary.methods) {
    SCOPED_TRACE(method.name);
    ASSERT_TRUE(method.total_seconds);
    EXPECT_GE(*method.total_seconds,
              *method.plan_seconds + *method.train_seconds + *method.evaluation_seconds + kPause);
    ASSERT_FALSE(method.history.empty());
    EXPECT_GE(*method.total_seconds, method.history.back().elapsed_seconds);
  }
}

TEST_F(SmallExperiment, TellsWhenItTests) {
  std::vector<std::string> tested;
  run({.on_phase = [&](const Stage& stage, const char* phase) {
    if (std::string(phase) == "testing") tested.push_back(describe(stage));
  }});
  EXPECT_THAT(tested, testing::ElementsAre("bp", "neuroflux"));
}

TEST_F(SmallExperiment, EachBatchHasALearningRateOfItsOwn) {
  options_.training.reference_batch = 64;
  options_.training.optimizer.learning_rate = 0.125;
  options_.training.schedule = nn::ScheduleKind::constant;
  options_.training.warmup_epochs = 0.0;
  struct Epoch {
    Stage stage;
    double rate;
  };
  std::vector<Epoch> epochs;
  const Summary summary =
      run({.on_epoch = [&](const Stage& stage, const nn::EpochMetrics& metrics) {
        epochs.push_back({stage, metrics.learning_rate});
      }});
  for (const MethodSummary& method : summary.methods) {
    SCOPED_TRACE(method.name);
    for (const Epoch& told : epochs) {
      if (told.stage.method != method.name) continue;
      const std::int64_t block = std::max<std::int64_t>(told.stage.block, 1);
      const std::int64_t batch = method.batches.at(static_cast<std::size_t>(block - 1));
      EXPECT_LE(batch, 16);
      EXPECT_EQ(told.rate, 0.125 * static_cast<double>(batch) / 64.0);
    }
  }
  EXPECT_GE(epochs.size(), 4U);
}

TEST_F(SmallExperiment, CachesInMemoryArePlannedWithoutStorage) {
  use_several_blocks();
  options_.training.cache_place = CachePlace::memory;
  for (const bool profile : {false, true}) {
    options_.profile = profile;
    const StorageSpeed speed = make_time_model(options_)->storage();
    EXPECT_TRUE(std::isinf(speed.read) && std::isinf(speed.write)) << profile;
  }
}

TEST_F(SmallExperiment, CachesNoMoreViewsThanThereAreEpochs) {
  use_several_blocks();
  options_.data_options.crop_padding = 1;
  const DataShape data = data_shape(load_data(options_));
  options_.cache_views = 2;
  const ExperimentPlan two = plan_experiment(options_, data);
  options_.cache_views = 5;
  const ExperimentPlan five = plan_experiment(options_, data);
  const Plan& expected = *two.methods.front()->local_plan();
  const Plan& found = *five.methods.front()->local_plan();
  EXPECT_EQ(found.cache_views, 2);
  EXPECT_EQ(found.cache_bytes, expected.cache_bytes);
  ASSERT_GE(found.blocks.size(), 2U);
  ASSERT_EQ(found.blocks.size(), expected.blocks.size());
  for (std::size_t k = 0; k < found.blocks.size(); ++k)
    EXPECT_EQ(found.blocks[k].cache_bytes, expected.blocks[k].cache_bytes);
  const auto look = [&](const Stage& stage, const nn::EpochMetrics&) {
    if (stage.block < 2) return;
    std::int64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache"))
      bytes += static_cast<std::int64_t>(entry.file_size());
    EXPECT_GT(bytes, 0);
    EXPECT_LE(bytes, found.blocks.front().cache_bytes);
    fail("seen");
  };
  EXPECT_THAT(error_text([&] { run({.on_epoch = look}); }), HasSubstr("seen"));
}

TEST_F(SmallExperiment, ThePlanTellsTheOrderInWhichCachesAreRead) {
  use_several_blocks();
  const auto look = [&](const Stage& stage, const nn::EpochMetrics&) {
    if (stage.block < 2) return;
    const json method = json::parse(read_file(folder_ / "plan.json")).at("methods").at(0);
    EXPECT_EQ(method.at("cache_order").at("kind"), kCacheOrder);
    EXPECT_EQ(method.at("cache_order").at("window_chunks"), RunCacheOptions().window_chunks);
    EXPECT_EQ(CacheReadOptions().window_chunks, RunCacheOptions().window_chunks);
    const fs::path manifest = folder_ / "cache" / "train-after-block-1.json";
    const CacheLayout layout = cache_layout(read_manifest(manifest).spec);
    EXPECT_EQ(method.at("blocks").at(0).at("cache_chunk_samples"), layout.samples_per_chunk);
    EXPECT_FALSE(method.at("blocks").back().contains("cache_chunk_samples"));
    const json told = json::parse(read_file(manifest));
    EXPECT_EQ(told.at("samples_per_chunk"), layout.samples_per_chunk);
    EXPECT_EQ(told.at("order"), "as in the data set");
    fail("seen");
  };
  EXPECT_THAT(error_text([&] { run({.on_epoch = look}); }), HasSubstr("seen"));
  // Where there are more samples than in a chunk.
  options_.budget = std::int64_t{2} << 20;
  DataShape data;
  data.train_count = 50000;
  const ExperimentPlan plan = plan_experiment(options_, data);
  const Plan& local = *plan.methods.front()->local_plan();
  ASSERT_GE(local.blocks.size(), 2U);
  CacheSpec cache;
  cache.name = "train";
  cache.count = 50000;
  cache.sample_shape = local.units[static_cast<std::size_t>(local.blocks[0].last_unit)].output;
  const std::int64_t samples = cache_layout(cache).samples_per_chunk;
  EXPECT_LT(samples, 50000);
  const json document = to_json(plan);
  EXPECT_EQ(document.at("methods").at(0).at("blocks").at(0).at("cache_chunk_samples"), samples);
}

}  // namespace
}  // namespace nf
