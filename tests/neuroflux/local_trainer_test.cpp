#include "neuroflux/local_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <string_view>

#include "neuroflux/cache_plan.h"
#include "nn/models/registry.h"
#include "tests/neuroflux/local_training.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

TEST_F(LocalTraining, LearnsWithinTheBudgetAtThePredictedPeaks) {
  training_.epochs = 4;
  const LocalResult result = train();
  ASSERT_GT(blocks_, 2U);
  EXPECT_EQ(result.blocks.size(), blocks_);
  EXPECT_EQ(result.exits.size(), static_cast<std::size_t>(net_->unit_count()));
  for (const BlockResult& block : result.blocks)
    EXPECT_EQ(block.measured_peak_bytes, block.plan.predicted_peak_bytes);
  EXPECT_EQ(result.measured_peak_bytes, result.predicted_peak_bytes);
  EXPECT_LE(result.measured_peak_bytes, budget_);
  // Chance is 0.25 on four classes.
  EXPECT_GT(result.exits[result.chosen].validation_accuracy, 0.6);
  EXPECT_GT(result.test_accuracy, 0.6);
  EXPECT_FALSE(fs::exists(training_.cache_folder));
}

TEST_F(LocalTraining, PooledAuxiliaryNetworksTeachToo) {
  rule_ = make_auxiliary_rule("pooled");
  training_.epochs = 4;
  const LocalResult result = train();
  for (const BlockResult& block : result.blocks)
    EXPECT_EQ(block.measured_peak_bytes, block.plan.predicted_peak_bytes);
  EXPECT_GT(result.exits[result.chosen].validation_accuracy, 0.6);
  EXPECT_GT(result.test_accuracy, 0.6);
}

TEST_F(LocalTraining, TheDeliveredExitsAccuracyDoesNotDecideWhatIsTrained) {
  training_.stop_when_saturated = true;
  training_.patience = 100;
  training_.exit_tolerance = 0.0;
  const LocalResult best = train();
  training_.delivered_accuracy = 1e-9;  // all have it
  const LocalResult smallest = train();
  EXPECT_EQ(smallest.weights, best.weights);
  EXPECT_EQ(smallest.blocks.size(), blocks_);
  EXPECT_FALSE(smallest.stopped_early);
  for (const ExitResult& exit : smallest.exits)
    EXPECT_GE(exit.parameters, smallest.exits[smallest.chosen].parameters);
  // Also where the whole net would be delivered.
  training_.deliver_whole_net = true;
  EXPECT_EQ(train().chosen, smallest.chosen);
  training_.delivered_accuracy = 2.0;  // none has it
  EXPECT_EQ(train().chosen, best.exits.size() - 1);
  training_.deliver_whole_net = false;
  EXPECT_EQ(train().chosen, best.chosen);
}

TEST_F(LocalTraining, SameSeedSameBits) {
  std::vector<double> losses[2];
  LocalResult results[2];
  for (int i = 0; i < 2; ++i)
    results[i] = train({.on_epoch =
                            [&](const Stage&, const nn::EpochMetrics& metrics) {
                              for (const nn::OutputMetrics& output : metrics.outputs)
                                losses[i].push_back(output.train_loss);
                            }},
                       1 + 2 * i);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(results[0].weights, results[1].weights);
  EXPECT_EQ(results[0].test_accuracy, results[1].test_accuracy);
  training_.seed = 4;
  EXPECT_NE(train().weights, results[0].weights);
}

TEST_F(LocalTraining, StoredPixelsTrainTheSameNetAtThePredictedPeaks) {
  const LocalResult values = train();
  format_ = data().pixel_format();
  EXPECT_EQ(*format_, (nn::PixelFormat{{12, 12, 1}, 1}));
  // What is recomputed of a damaged cache comes from stored pixels too.
  std::vector<std::string> messages;
  const LocalResult pixels =
      train({.on_epoch =
                 [&](const Stage& stage, const nn::EpochMetrics& metrics) {
                   if (stage.block == 2 && metrics.epoch == 1) damage_cache("1", 100);
                 },
             .on_message = [&](const std::string& message) { messages.push_back(message); }});
  EXPECT_THAT(messages, testing::ElementsAre(HasSubstr("train-after-block-1")));
  EXPECT_EQ(values.weights, pixels.weights);
  EXPECT_EQ(values.test_accuracy, pixels.test_accuracy);
  for (const BlockResult& block : pixels.blocks)
    EXPECT_EQ(block.measured_peak_bytes, block.plan.predicted_peak_bytes);
  EXPECT_EQ(pixels.measured_peak_bytes, pixels.predicted_peak_bytes);
  format_->stored = {16, 16, 1};
  EXPECT_THAT([&] { train(); },
              testing::ThrowsMessage<Error>("train: the plan counts on images stored as [16,16,1] "
                                            "and 1 tables, the data has [12,12,1] and 1"));
}

TEST_F(LocalTraining, DamagedChunksAreRecomputedAndNothingElseChanges) {
  const LocalResult clean = train();
  ASSERT_GE(blocks_, 3U);
  std::vector<std::string> messages;
  int damaged = 0;
  // The second cache was made from what the first one had rounded.
  const LocalResult repaired =
      train({.on_epoch =
                 [&](const Stage& stage, const nn::EpochMetrics& metrics) {
                   if (stage.block < 2 || stage.block > 3 || metrics.epoch != 1) return;
                   damage_cache(std::to_string(stage.block - 1), 100);
                   ++damaged;
                 },
             .on_message = [&](const std::string& message) { messages.push_back(message); }});
  ASSERT_EQ(damaged, 2);
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_THAT(messages[0], HasSubstr("train-after-block-1"));
  EXPECT_THAT(messages[1], HasSubstr("train-after-block-2"));
  for (const std::string& message : messages) EXPECT_THAT(message, Not(HasSubstr("other values")));
  EXPECT_EQ(clean.weights, repaired.weights);
  EXPECT_EQ(clean.test_accuracy, repaired.test_accuracy);
  for (const BlockResult& block : repaired.blocks)
    EXPECT_EQ(block.measured_peak_bytes, block.plan.predicted_peak_bytes);
}

TEST_F(LocalTraining, StopsWhenNewExitsNoLongerImprove) {
  training_.stop_when_saturated = true;
  training_.patience = 1;
  training_.improvement = 1.0;
  const LocalResult result = train();
  EXPECT_TRUE(result.stopped_early);
  EXPECT_EQ(result.blocks.size(), 2U);
  EXPECT_FALSE(fs::exists(training_.cache_folder));
}

TEST_F(LocalTraining, StopsBehindTheFirstBlockWithAnExitOfTheWantedAccuracy) {
  training_.exit_accuracy = 0.01;
  const LocalResult all = train();
  EXPECT_FALSE(all.stopped_early);  // which the fixture rules out
  training_.stop_when_saturated = true;
  training_.patience = 100;
  const LocalResult first = train();
  EXPECT_TRUE(first.stopped_early);
  EXPECT_EQ(first.blocks.size(), 1U);
  EXPECT_GE(first.exits[first.chosen].validation_accuracy, training_.exit_accuracy);
  training_.exit_accuracy = 1.0;  // no exit has it
  EXPECT_EQ(train().blocks.size(), all.blocks.size());
}

TEST_F(LocalTraining, ALossThatIsNotFiniteNamesStepAndUnit) {
  training_.optimizer.learning_rate = 1e30;
  training_.warmup_epochs = 0.0;
  try {
    train();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr(fmt::format("neuroflux block 1/{}, epoch 1 step", blocks_)));
    EXPECT_THAT(error.what(), HasSubstr("the loss of conv1 is"));
    EXPECT_THAT(error.what(), HasSubstr("nan"));
  }
  EXPECT_FALSE(fs::exists(training_.cache_folder));
  for (const nn::Parameter* parameter : net_->all()) EXPECT_FALSE(parameter->value);
}

TEST_F(LocalTraining, TellsWhenItFillsACacheAndWhenItTests) {
  std::vector<std::string> phases, expected;
  train({.on_phase = [&](const Stage& stage, const char* phase) {
    phases.push_back(fmt::format("{}: {}", describe(stage), phase));
  }});
  for (std::size_t k = 1; k < blocks_; ++k)
    expected.push_back(fmt::format("neuroflux block {}/{}: filling cache", k, blocks_));
  expected.emplace_back("neuroflux: testing");
  EXPECT_EQ(phases, expected);
}

TEST_F(LocalTraining, ACacheFolderThatCanNotBeMadeIsRefusedBeforeTraining) {
  fs::create_directories(folder_);
  std::ofstream(folder_ / "file") << "not a folder";
  training_.cache_folder = folder_ / "file" / "cache";
  int steps = 0;
  try {
    train({.on_step = [&](const Stage&, const nn::StepProgress&) { ++steps; }});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr((folder_ / "file").string()));
  }
  EXPECT_EQ(steps, 0);
}

TEST_F(LocalTraining, ACacheFolderThatWasThereStays) {
  fs::create_directories(training_.cache_folder);
  train();
  EXPECT_TRUE(fs::is_empty(training_.cache_folder));
}

TEST_F(LocalTraining, CachesInMemoryTrainTheSameBitsWithoutFiles) {
  const LocalResult files = train();
  training_.cache_place = CachePlace::memory;
  bool folder_seen = false;
  const LocalResult memory = train({.on_batch = [&](const Stage&) {
    folder_seen = folder_seen || fs::exists(training_.cache_folder);
  }});
  EXPECT_FALSE(folder_seen);
  EXPECT_EQ(files.weights, memory.weights);
  EXPECT_EQ(files.test_accuracy, memory.test_accuracy);
}

TEST_F(LocalTraining, LeastHostMemoryTrainsTheSameBitsAndOneByteLessIsRefusedBeforeTraining) {
  const LocalResult unlimited = train();
  for (const CachePlace place : {CachePlace::disk, CachePlace::memory})
    for (const std::int64_t views : {1, 2}) {
      SCOPED_TRACE(fmt::format("{} {}", to_string(place), views));
      views_ = views;
      training_.cache_place = place;
      training_.cache_host_bytes = 1;
      int steps = 0;
      const auto refusal = [&]() -> std::string {
        try {
          train({.on_step = [&](const Stage&, const nn::StepProgress&) { ++steps; }});
        } catch (const Error& error) {
          return error.what();
        }
        return "no error";
      };
      const std::string message = refusal();
      EXPECT_EQ(steps, 0);
      long long least = 0;
      ASSERT_EQ(std::sscanf(message.c_str(),
                            "activation caches: they take %lld bytes of host memory at the "
                            "least, the limit is 1",
                            &least),
                1)
          << message;
      training_.cache_host_bytes = least;
      const LocalResult limited = train();
      std::int64_t most = 0;
      for (const BlockResult& block : limited.blocks) most = std::max(most, block.cache_host_bytes);
      EXPECT_EQ(most, least);
      if (views == 1) {
        EXPECT_EQ(limited.weights, unlimited.weights);
      }
      training_.cache_host_bytes = least - 1;
      EXPECT_THAT(refusal(), HasSubstr(fmt::format("{} bytes of host memory at the least", least)));
    }
}

TEST_F(LocalTraining, ViewsAreTheImagesOfTheirEpochAndEpochsCycleThroughThem) {
  views_ = 2;
  training_.epochs = 5;
  // Of the cache's files while the second block trains: view 1, view 2.
  std::vector<std::string> views[2];
  std::vector<double> losses[2];
  for (int run = 0; run < 2; ++run)
    train({.on_epoch = [&](const Stage& stage, const nn::EpochMetrics& metrics) {
      for (const nn::OutputMetrics& output : metrics.outputs)
        losses[run].push_back(output.train_loss);
      if (stage.block == 2 && metrics.epoch == 1)
        for (const int view : {1, 2}) {
          const fs::path path =
              training_.cache_folder / fmt::format("train-after-block-1-view-{}.data", view);
          views[run].push_back(read_file(path));
        }
    }});
  ASSERT_EQ(views[0].size(), 2U);
  EXPECT_NE(views[0][0], views[0][1]);
  EXPECT_EQ(views[0], views[1]);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_FALSE(fs::exists(training_.cache_folder));
  training_.seed = 4;
  train({.on_epoch = [&](const Stage& stage, const nn::EpochMetrics& metrics) {
    if (stage.block != 2 || metrics.epoch != 1) return;
    EXPECT_NE(views[0][0], read_file(training_.cache_folder / "train-after-block-1-view-1.data"));
  }});
}

TEST_F(LocalTraining, DamagedViewIsRecomputedFromItsOwnAugmentation) {
  views_ = 2;
  const LocalResult clean = train();
  for (const auto& format : {std::optional<nn::PixelFormat>(), {data().pixel_format()}}) {
    SCOPED_TRACE(format ? "pixels" : "values");
    format_ = format;
    std::vector<std::string> messages;
    // Epoch 2 reads view 2.
    const LocalResult repaired =
        train({.on_epoch =
                   [&](const Stage& stage, const nn::EpochMetrics& metrics) {
                     if (stage.block == 3 && metrics.epoch == 1) damage_cache("2-view-2", 100);
                   },
               .on_message = [&](const std::string& message) { messages.push_back(message); }});
    ASSERT_EQ(messages.size(), 1U);
    EXPECT_THAT(messages[0], HasSubstr("train-after-block-2-view-2"));
    EXPECT_THAT(messages[0], Not(HasSubstr("other values")));
    EXPECT_EQ(clean.weights, repaired.weights);
  }
}

TEST_F(LocalTraining, CacheFolderRemovedDuringARunEndsItWithFileAndReason) {
  try {
    train({.on_epoch = [&](const Stage& stage, const nn::EpochMetrics& metrics) {
      if (stage.block == 2 && metrics.epoch == 1) fs::remove_all(training_.cache_folder);
    }});
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("train-after-block-1.json: No such file or directory"));
  }
  EXPECT_FALSE(fs::exists(training_.cache_folder));
}

TEST_F(LocalTraining, NeverMoreThanTwoGenerationsOfCachesLieThere) {
  constexpr std::string_view kAfter = "-after-block-";
  for (const std::int64_t views : {1, 2}) {
    SCOPED_TRACE(views);
    views_ = views;
    std::size_t most = 0;
    const auto look = [&] {
      std::set<int> generations;
      std::error_code none;
      for (const auto& entry : fs::directory_iterator(training_.cache_folder, none)) {
        const std::string name = entry.path().filename().string();
        ASSERT_NE(name.find(kAfter), std::string::npos) << name;
        generations.insert(std::stoi(name.substr(name.find(kAfter) + kAfter.size())));
      }
      most = std::max(most, generations.size());
    };
    train({.on_step = [&](const Stage&, const nn::StepProgress&) { look(); },
           .on_epoch = [&](const Stage&, const nn::EpochMetrics&) { look(); },
           .on_batch = [&](const Stage&) { look(); }});
    ASSERT_GE(blocks_, 3U);
    EXPECT_EQ(most, 2U);  // that which is read, and that which is filled
  }
}

TEST_F(LocalTraining, PlanReservesEachView) {
  const nn::TrainingData data = this->data();
  const Plan one = make(data);
  views_ = 3;
  const Plan three = make(data);
  ASSERT_EQ(three.blocks.size(), one.blocks.size());
  for (std::size_t k = 0; k + 1 < one.blocks.size(); ++k) {
    const auto bytes = [&](const Plan& plan) {
      return cache_generation(plan, k, data, DType::bf16).bytes(CachePlace::disk);
    };
    const CacheGeneration single = cache_generation(one, k, data, DType::bf16);
    EXPECT_EQ(three.blocks[k].cache_bytes - one.blocks[k].cache_bytes,
              2 * cache_bytes(single.train.front()));
    EXPECT_EQ(bytes(one), one.blocks[k].cache_bytes);
    EXPECT_EQ(bytes(three), three.blocks[k].cache_bytes);
  }
}

TEST(ScaledOptimizer, TheLearningRateGoesWithTheBatch) {
  TrainingOptions options;
  options.reference_batch = 64;
  options.optimizer.learning_rate = 0.5;
  options.optimizer.momentum = 0.75;
  EXPECT_EQ(scaled_optimizer(options, 64).learning_rate, 0.5);
  EXPECT_EQ(scaled_optimizer(options, 32).learning_rate, 0.25);
  EXPECT_EQ(scaled_optimizer(options, 128).learning_rate, 1.0);
  EXPECT_EQ(scaled_optimizer(options, 32).momentum, 0.75);
}

TEST_F(LocalTraining, TwiceTheReferenceBatchIsHalfTheRate) {
  training_.reference_batch = 32;
  const LocalResult half = train();
  training_.reference_batch = 16;
  EXPECT_NE(train().weights, half.weights);
  training_.optimizer.learning_rate /= 2;
  EXPECT_EQ(train().weights, half.weights);
}

TEST(FitOptions, TheStepScheduleCutsByEpochs) {
  TrainingOptions options;
  options.epochs = 6;
  options.warmup_epochs = 0.0;
  options.schedule = nn::ScheduleKind::step;
  // 7 steps an epoch; a third of 6 epochs are 14 steps.
  const nn::Schedule thirds = fit_options(options, 16, 100).schedule;
  EXPECT_DOUBLE_EQ(thirds.factor(13, 42), 1.0);
  EXPECT_DOUBLE_EQ(thirds.factor(14, 42), 0.1);
  EXPECT_DOUBLE_EQ(thirds.factor(41, 42), 0.01);
  options.step_epochs = 1.0;
  options.gamma = 0.5;
  EXPECT_DOUBLE_EQ(fit_options(options, 16, 100).schedule.factor(7, 42), 0.5);
}

TEST_F(LocalTraining, TheTraceHoldsEachBlocksFirstStepAndEndsBalanced) {
  MemoryTrace trace;
  const TrainingObserver observer{.trace = &trace};
  const LocalResult result = train(observer);
  std::int64_t peak = 0;
  std::set<std::string> units;
  for (const MemoryEvent& event : trace.events()) {
    peak = std::max(peak, event.reserved);
    units.insert(event.unit);
  }
  EXPECT_EQ(peak, result.predicted_peak_bytes);
  for (const auto& unit : net_->units()) EXPECT_TRUE(units.contains(unit->name()));
  // Each block begins on an empty device; what its first step finds there it leaves there.
  std::size_t blocks = 0;
  std::int64_t live = 0, resident = 0;
  bool stepping = false;
  const auto expect_balance = [&] {
    EXPECT_TRUE(stepping) << "no step of block " << blocks;
    EXPECT_EQ(live, resident) << "the step of block " << blocks << " kept or lost memory";
  };
  for (const MemoryEvent& event : trace.events()) {
    const bool allocates = event.action == MemoryAction::allocate;
    if (allocates && event.live == event.granted) {
      if (blocks > 0) expect_balance();
      ++blocks;
      stepping = false;
    }
    if (allocates && event.category == Category::input && !stepping) {
      stepping = true;
      resident = live;
    }
    live = event.live;
  }
  expect_balance();
  EXPECT_EQ(blocks, blocks_);
}

TEST_F(LocalTraining, ExitWeightsHoldTheExitAndNothingElse) {
  const nn::TrainingData data = this->data();
  const Plan plan = make(data);
  const LocalNet local(*net_, *rule_, plan);
  const LocalResult result = train_locally(Context::create(device()), local, plan, data, training_);
  ExitNet exit(local, 1);
  const nn::StateDict weights = exit_weights(local, result.weights, 1);
  EXPECT_EQ(weights.size(), exit.all().size());
  for (const nn::Parameter* parameter : exit.all())
    EXPECT_EQ(weights.at(parameter->name), result.weights.at(parameter->name));
}

}  // namespace
}  // namespace nf
