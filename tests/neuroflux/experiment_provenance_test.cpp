// Whole runs: what they plan, what they record, and what they refuse to go on with.
#include "neuroflux/experiment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "neuroflux/checkpoint.h"
#include "neuroflux/comparison.h"
#include "neuroflux/metrics_log.h"
#include "neuroflux/provenance.h"
#include "neuroflux/run_caches.h"
#include "neuroflux/run_lock.h"
#include "tests/support/expect.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::error_text;
using testing::HasSubstr;

class SmallExperiment : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              fmt::format("experiment-{}-{}", getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    options_.model = "vgg11";
    options_.width = 0.125;
    options_.data = "generated";
    options_.generated = {
        .count = 120, .height = 12, .width = 12, .channels = 1, .classes = 4, .seed = 5};
    options_.data_options = {.validation_fraction = 0.2, .pad_to = 16, .seed = 3};
    options_.methods = {"neuroflux"};
    options_.budget = 700 << 10;
    options_.batch = 16;
    options_.rho = 0.2;
    options_.partition = "homogeneous";
    options_.auxiliary = "adaptive";
    options_.units = "each";
    options_.training.epochs = 2;
    options_.training.reference_batch = 16;
    options_.training.stop_when_saturated = false;
    options_.device.threads = 1;
    options_.run_folder = folder_;
  }
  void TearDown() override { fs::remove_all(folder_); }

  Summary run(const TrainingObserver& observer = {}) const {
    const nn::TrainingData data = load_data(options_);
    return run_experiment(options_, plan_experiment(options_, data_shape(data)), data, observer);
  }

  /// Leaves the checkpoint of the first epoch.
  void cut_off_in_epoch_2() const {
    const auto cut = [](const Stage&, const nn::EpochMetrics& metrics) {
      if (metrics.epoch == 2) fail("cut off");
    };
    ASSERT_THAT(error_text([&] { run({.on_epoch = cut}); }), HasSubstr("cut off"));
    ASSERT_TRUE(fs::exists(checkpoint_file(folder_)));
  }

  ExperimentOptions options_;
  fs::path folder_;
};

TEST_F(SmallExperiment, ACheckpointWaitsUntilItsMetricsAreOnStorage) {
  options_.methods = {"bp"};
  options_.budget = std::int64_t{16} << 20;
  // It takes every line and refuses to sync.
  fs::create_directories(folder_);
  fs::create_symlink("/dev/null", folder_ / "metrics.jsonl");
  std::vector<std::string> messages;
  bool checkpoint = false;
  run({.on_message = [&](const std::string& message) {
    messages.push_back(message);
    checkpoint = checkpoint || fs::exists(checkpoint_file(folder_));
  }});
  EXPECT_FALSE(messages.empty());
  EXPECT_THAT(messages, testing::Each(HasSubstr("no checkpoint of this epoch: file: cannot sync")));
  EXPECT_FALSE(checkpoint);
}

TEST_F(SmallExperiment, MetricsGoOnBehindTheLinesOfTheCheckpoint) {
  fs::create_directories(folder_);
  const fs::path path = folder_ / "metrics.jsonl";
  nn::EpochMetrics first, second;
  first.epoch = 1;
  second.epoch = 2;
  std::int64_t bytes = 0;
  {
    MetricsLog log(path);
    log.add({.method = "bp"}, first, 1.0);
    bytes = log.bytes();
    log.add({.method = "bp"}, second, 2.0);
    log.sync();
  }
  const std::string whole = read_file(path);
  EXPECT_EQ(static_cast<std::int64_t>(fs::file_size(path)), 2 * bytes);
  {
    MetricsLog log(path, bytes);
    EXPECT_EQ(read_file(path), whole.substr(0, static_cast<std::size_t>(bytes)));
    log.add({.method = "bp"}, second, 2.0);
    EXPECT_EQ(log.bytes(), 2 * bytes);
  }
  EXPECT_EQ(read_file(path), whole);
  EXPECT_THAT(error_text([&] { MetricsLog(path, 2 * bytes + 1); }),
              HasSubstr("fewer than the " + std::to_string(2 * bytes + 1) + " bytes it had"));
}

TEST_F(SmallExperiment, GoesOnWithItsOwnImagesAndLearningRateAlone) {
  options_.methods = {"bp"};
  options_.budget = std::int64_t{16} << 20;
  cut_off_in_epoch_2();
  options_.resume = true;
  const auto refusal = [&] { return error_text([&] { run(); }); };
  const std::string file = checkpoint_file(folder_).string();
  options_.generated.seed = 6;
  EXPECT_EQ(refusal(),
            file + ": the run was begun with other images or labels than the data set has now");
  options_.generated.seed = 5;
  options_.training.optimizer.learning_rate *= 2.0;
  EXPECT_THAT(refusal(), HasSubstr(file + ": the run was begun with another learning rate"));
  options_.training.optimizer.learning_rate /= 2.0;
  options_.training.gamma *= 2.0;
  EXPECT_THAT(refusal(), HasSubstr(file + ": the run was begun with another learning rate"));
  options_.training.gamma /= 2.0;
  std::vector<std::int64_t> epochs;
  run({.on_epoch = [&](const Stage&, const nn::EpochMetrics& metrics) {
    epochs.push_back(metrics.epoch);
  }});
  EXPECT_THAT(epochs, testing::ElementsAre(2));
}

TEST_F(SmallExperiment, CachesInMemoryArePlannedWithoutStorage) {
  options_.training.cache_place = CachePlace::memory;
  for (const bool profile : {false, true}) {
    options_.profile = profile;
    const StorageSpeed speed = make_time_model(options_)->storage();
    EXPECT_TRUE(std::isinf(speed.read) && std::isinf(speed.write)) << profile;
  }
}

TEST_F(SmallExperiment, CachesNoMoreViewsThanThereAreEpochs) {
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

TEST_F(SmallExperiment, AFolderIsLockedByOneRunAtATime) {
  fs::create_directories(folder_);
  const std::string refusal = "run folder: another run is going on in " + folder_.string();
  {
    const RunLock first(folder_);
    EXPECT_EQ(error_text([&] { const RunLock second(folder_); }), refusal);
    EXPECT_TRUE(fs::is_empty(folder_));
  }
  // A process that is gone does not keep it.
  int ready[2] = {};
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_NE(child, -1);
  if (child == 0) {
    // Whatever is thrown, the child must not go on with the tests.
    try {
      const RunLock lock(folder_);
      const char byte = 'x';
      if (::write(ready[1], &byte, 1) == 1) ::pause();
    } catch (...) {
    }
    ::_exit(2);
  }
  ::close(ready[1]);  // a child that dies ends the reading
  char byte = 0;
  const ssize_t told = ::read(ready[0], &byte, 1);
  ::close(ready[0]);
  const std::string while_it_lives = error_text([&] { const RunLock second(folder_); });
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_EQ(told, 1) << "the child has no lock";
  EXPECT_EQ(while_it_lives, refusal);
  EXPECT_EQ(error_text([&] { const RunLock second(folder_); }), "");
  // Runs of the same process are kept apart too.
  options_.methods = {"bp"};
  options_.budget = std::int64_t{16} << 20;
  const ComparisonOptions comparison{options_, {options_.budget}, {0}, {}};
  const auto again = [&](const Stage&, const nn::EpochMetrics&) {
    run_comparison(comparison, *make_time_model(options_), {});
  };
  EXPECT_THAT(error_text([&] {
                run_comparison(comparison, *make_time_model(options_), {.on_epoch = again});
              }),
              HasSubstr(refusal));
}

TEST_F(SmallExperiment, ThePlanTellsTheOrderInWhichCachesAreRead) {
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

TEST(DataHash, KnowsEveryImageAndLabelAndWhichOfThemTrain) {
  const nn::GeneratedOptions generated{
      .count = 40, .height = 6, .width = 6, .channels = 1, .classes = 4};
  const nn::ImageSet images = nn::generate_images(generated);
  const auto hash = [](const nn::ImageSet& train, const nn::ImageSet& test,
                       std::uint64_t seed = 0) {
    return data_hash({train, test, {.validation_fraction = 0.25, .seed = seed}});
  };
  const std::uint64_t own = hash(images, images);
  EXPECT_EQ(hash(images, images), own);
  EXPECT_NE(hash(images, images, 1), own);
  nn::ImageSet pixel = images, label = images;
  pixel.pixels.back() = static_cast<std::uint8_t>(pixel.pixels.back() ^ 1U);
  std::swap(label.labels[0], label.labels[1]);
  for (const nn::ImageSet& other : {pixel, label}) {
    EXPECT_NE(hash(other, images), own);
    EXPECT_NE(hash(images, other), own);
  }
}

}  // namespace
}  // namespace nf
