// What a run that was cut off goes on from: metrics and checkpoints that agree, the same data and
// options, a folder of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "neuroflux/checkpoint.h"
#include "neuroflux/comparison.h"
#include "neuroflux/metrics_log.h"
#include "neuroflux/provenance.h"
#include "neuroflux/run_lock.h"
#include "tests/neuroflux/small_experiment.h"
#include "tests/support/expect.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using testing::HasSubstr;
using ExperimentResume = SmallExperiment;

TEST_F(ExperimentResume, ACheckpointWaitsUntilItsMetricsAreOnStorage) {
  options_.methods = {"bp"};
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

TEST_F(ExperimentResume, MetricsGoOnBehindTheLinesOfTheCheckpoint) {
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

TEST_F(ExperimentResume, GoesOnWithItsOwnImagesAndLearningRateAlone) {
  options_.dropout = 0.25;
  options_.methods = {"bp"};
  // Leaves the checkpoint of the first epoch.
  const auto cut = [](const Stage&, const nn::EpochMetrics& metrics) {
    if (metrics.epoch == 2) fail("cut off");
  };
  ASSERT_THAT(error_text([&] { run({.on_epoch = cut}); }), HasSubstr("cut off"));
  ASSERT_TRUE(fs::exists(checkpoint_file(folder_)));
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
  options_.dropout = 0.5;  // which no plan tells from another
  EXPECT_THAT(refusal(), HasSubstr(file + ": the run was begun with another learning rate"));
  options_.dropout = 0.25;
  std::vector<std::int64_t> epochs;
  run({.on_epoch = [&](const Stage&, const nn::EpochMetrics& metrics) {
    epochs.push_back(metrics.epoch);
  }});
  EXPECT_THAT(epochs, testing::ElementsAre(2));
}

TEST_F(ExperimentResume, AFolderIsLockedByOneRunAtATime) {
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
  const ComparisonOptions comparison{options_, {options_.budget}, {0}, {}};
  const auto again = [&](const Stage&, const nn::EpochMetrics&) {
    run_comparison(comparison, *make_time_model(options_), {});
  };
  EXPECT_THAT(error_text([&] {
                run_comparison(comparison, *make_time_model(options_), {.on_epoch = again});
              }),
              HasSubstr(refusal));
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
