#include "neuroflux/time_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/cores.h"
#include "engine/timer.h"
#include "neuroflux/auxiliary.h"
#include "neuroflux/local_net.h"
#include "neuroflux/time_profile.h"
#include "nn/models/registry.h"
#include "tests/support/small_file_system.h"

namespace nf {
namespace {

using testing::HasSubstr;

TEST(BatchTime, IsLinearBetweenItsPoints) {
  const BatchTime time({{2, 10.0}, {4, 16.0}, {8, 20.0}});
  EXPECT_DOUBLE_EQ(time.seconds(2), 10.0);
  EXPECT_DOUBLE_EQ(time.seconds(3), 13.0);
  EXPECT_DOUBLE_EQ(time.seconds(4), 16.0);
  EXPECT_DOUBLE_EQ(time.seconds(6), 18.0);
  EXPECT_DOUBLE_EQ(time.seconds(8), 20.0);
  EXPECT_DOUBLE_EQ(time.seconds(16), 40.0);  // beyond what was measured: in proportion
  EXPECT_DOUBLE_EQ(time.seconds(1), 7.0);    // on the first line
  EXPECT_DOUBLE_EQ(BatchTime({{1, 0.0}, {2, 8.0}, {3, 8.0}}).seconds(1), 0.0);
  EXPECT_DOUBLE_EQ(BatchTime({{4, 2.0}}).seconds(2), 1.0);
}

TEST(BatchTime, CountsTheShortBatch) {
  const BatchTime time({{1, 3.0}, {4, 6.0}});
  EXPECT_DOUBLE_EQ(time.set_seconds(8, 4), 12.0);
  EXPECT_DOUBLE_EQ(time.set_seconds(10, 4), 12.0 + 4.0);
  EXPECT_DOUBLE_EQ(time.set_seconds(3, 4), 5.0);
  EXPECT_DOUBLE_EQ(time.set_seconds(0, 4), 0.0);
}

TEST(BatchTime, RefusesPointsOutOfOrder) {
  EXPECT_THROW(BatchTime(std::vector<BatchTime::Point>()), Error);
  EXPECT_THROW(BatchTime({{4, 1.0}, {4, 1.0}}), Error);
  EXPECT_THROW(BatchTime({{0, 1.0}}), Error);
  EXPECT_THROW(BatchTime({{1, -1.0}}), Error);
  EXPECT_THROW(BatchTime().seconds(1), Error);
}

PassTimes constant_times(double stage, double train, double evaluate, double forward) {
  return {BatchTime({{1, stage}}), BatchTime({{1, train}}), BatchTime({{1, evaluate}}),
          BatchTime({{1, forward}})};
}

TEST(BlockTime, AddsUnitsAndTakesTheSlowerOfReadingAndComputing) {
  const PassTimes a = constant_times(0.5, 4.0, 2.0, 1.0), b = constant_times(0.25, 3.0, 1.0, 0.5);
  BlockWork work{.epochs = 2, .train_count = 10, .validation_count = 4};
  const BlockTime alone = block_time({&a, &b}, 2, work, {});
  EXPECT_DOUBLE_EQ(alone.train, 2 * 10 * (0.5 + 4.0 + 3.0));  // staged once, by the first
  EXPECT_DOUBLE_EQ(alone.evaluation, 2 * 4 * (0.5 + 2.0 + 1.0));
  EXPECT_DOUBLE_EQ(alone.cache, 0.0);
  work.read_bytes = 1000;
  work.write_bytes = 7000;
  // Fast storage costs nothing but the forward pass.
  const BlockTime fast = block_time({&a, &b}, 2, work, {1e9, 1e9});
  EXPECT_DOUBLE_EQ(fast.train, alone.train);
  EXPECT_DOUBLE_EQ(fast.cache, 14 * (0.5 + 1.0 + 0.5));
  // 10 bytes a second: reading 100 bytes a sample takes longer than its steps, writing longer
  // still.
  const BlockTime slow = block_time({&a, &b}, 2, work, {10.0, 10.0});
  EXPECT_DOUBLE_EQ(slow.train, 2 * 1000 / 10.0);
  EXPECT_DOUBLE_EQ(slow.evaluation, 2 * 400 / 10.0);
  EXPECT_DOUBLE_EQ(slow.cache, 7000 / 10.0);
}

TEST(BlockTime, AddsTheWorkOfReadingAndWritingToComputing) {
  const PassTimes unit = constant_times(0.5, 4.0, 2.0, 1.0);
  const BlockWork work{.epochs = 2,
                       .train_count = 10,
                       .validation_count = 4,
                       .read_bytes = 1000,
                       .write_bytes = 7000};
  StorageSpeed speed{.write = 1e9, .read = 1e9, .write_work = 1e-3, .read_work = 1e-2};
  const BlockTime time = block_time({&unit}, 2, work, speed);
  EXPECT_DOUBLE_EQ(time.train, 2 * (10 * 4.5 + 1000 * 1e-2));
  EXPECT_DOUBLE_EQ(time.evaluation, 2 * (4 * 2.5 + 400 * 1e-2));
  EXPECT_DOUBLE_EQ(time.cache, 14 * 1.5 + 1400 * 1e-2 + 7000 * 1e-3);
  // Where the transfer takes longer still, it alone counts.
  speed.write = speed.read = 1.0;
  EXPECT_DOUBLE_EQ(block_time({&unit}, 2, work, speed).train, 2 * 1000);
  EXPECT_DOUBLE_EQ(block_time({&unit}, 2, work, speed).cache, 7000);
}

TEST(FastestBatch, IsNotAlwaysTheLargest) {
  // Falls out of a cache between 8 and 32: 8 samples take 8 ms, 32 take 64.
  PassTimes unit = constant_times(0.0, 1.0, 0.0, 0.0);
  unit.train = BatchTime({{2, 4e-3}, {8, 8e-3}, {32, 64e-3}});
  EXPECT_EQ(fastest_batch({&unit}, 32, 3200), 8);
  EXPECT_EQ(fastest_batch({&unit}, 8, 3200), 8);
  EXPECT_EQ(fastest_batch({&unit}, 5, 3200), 5);
  // Eight percent better is noise.
  unit.train = BatchTime({{16, 0.92}, {32, 2.0}});
  EXPECT_EQ(fastest_batch({&unit}, 32, 3200), 32);
  EXPECT_EQ(fastest_batch({&unit}, 32, 3200, 0.05), 16);
}

class MeasuredTimes : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("nf-times-{}", getpid());
    net_ = nn::make_model("vgg11", {.input = {16, 16, 3}, .classes = 10, .width = 0.125});
    rule_ = make_auxiliary_rule("adaptive");
    local_ = std::make_unique<LocalNet>(*net_, *rule_,
                                        std::vector<std::int64_t>{16, 16, 16, 16, 16, 16, 16, 0});
    options_.device.budget = std::int64_t{256} << 20;
    options_.cache_folder = folder_;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
  std::unique_ptr<nn::Model> net_;
  std::shared_ptr<const AuxiliaryRule> rule_;
  std::unique_ptr<LocalNet> local_;
  MeasureOptions options_;
};

TEST_F(MeasuredTimes, ComeFromRealStepsAtThreeBatches) {
  const auto times = make_measured_times(options_);
  const PassTimes unit = times->unit(local_->range(1, 1).front(), local_->input_sample(1), 64);
  const PassTimes whole = times->whole(*net_, {}, 32);
  ASSERT_EQ(unit.train.points().size(), 3U);
  EXPECT_EQ(unit.train.points()[0].batch, 4);
  EXPECT_EQ(unit.train.points()[1].batch, 16);
  EXPECT_EQ(unit.train.points()[2].batch, 64);
  EXPECT_EQ(whole.train.points().back().batch, 32);
  for (const PassTimes* passes : {&unit, &whole}) {
    EXPECT_GT(passes->train.seconds(32), 0.0);
    EXPECT_GT(passes->evaluate.seconds(32), 0.0);
    EXPECT_GE(passes->forward.seconds(32), 0.0);
  }
  // Off the device again: placing it elsewhere would throw if it were not.
  const ContextPtr context = Context::create({});
  net_->materialize(context, 0);
  net_->release();
}

TEST_F(MeasuredTimes, StorageIsMeasuredInTheFolderAndLeavesNothing) {
  const auto times = make_measured_times(options_);
  const StorageSpeed speed = times->storage();
  EXPECT_GT(speed.write, 1e6);
  EXPECT_GT(speed.read, 1e6);
  // With a thread for each core none is left.
  if (make_meta_context(options_.device)->backend().threads() >= usable_cores()) {
    EXPECT_GT(speed.read_work, 0.0);
    EXPECT_GT(speed.write_work, 0.0);
  }
  options_.device.threads = 1;
  if (usable_cores() > 1) {
    EXPECT_EQ(make_measured_times(options_)->storage().read_work, 0.0);
  }
  EXPECT_FALSE(std::filesystem::exists(folder_));
}

TEST_F(MeasuredTimes, StorageIsMeasuredTheWayTheRunWillUseIt) {
  options_.cache_storage.queue.depth = 65;  // which no queue has
  EXPECT_THROW(make_measured_times(options_)->storage(), Error);
  // In memory there is nothing to measure.
  options_.cache_place = CachePlace::memory;
  const StorageSpeed speed = make_measured_times(options_)->storage();
  EXPECT_TRUE(std::isinf(speed.read) && std::isinf(speed.write));
  EXPECT_EQ(speed.read_work + speed.write_work, 0.0);
  EXPECT_FALSE(std::filesystem::exists(folder_));
}

TEST_F(MeasuredTimes, StorageIsTakenAsNominalWhereThereIsNoRoomToMeasure) {
  const test::SmallFileSystem disk(folder_, 1 << 20);
  if (!disk.refusal().empty()) GTEST_SKIP() << "no mount: " << disk.refusal();
  EXPECT_EQ(make_measured_times(options_)->storage().write,
            nominal_speed(options_.device).storage.write);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(MeasuredTimes, AnotherProcessCanPlanByTheSame) {
  options_.seconds_per_point = 0.0;
  const auto times = remember_times(make_measured_times(options_));
  const LocalUnit unit = local_->range(1, 1).front();
  const PassTimes known = times->unit(unit, local_->input_sample(1), 16);
  const StorageSpeed storage = times->storage();
  const std::filesystem::path file = folder_.string() + "-times.json";
  times->save(file);
  const auto others = remember_times(make_measured_times(options_));
  others->load(file);
  const PassTimes found = others->unit(unit, local_->input_sample(1), 16);
  for (const std::int64_t batch : {1, 3, 16, 100}) {
    EXPECT_EQ(found.train.seconds(batch), known.train.seconds(batch));
    EXPECT_EQ(found.stage.seconds(batch), known.stage.seconds(batch));
    EXPECT_EQ(found.evaluate.seconds(batch), known.evaluate.seconds(batch));
    EXPECT_EQ(found.forward.seconds(batch), known.forward.seconds(batch));
  }
  EXPECT_EQ(others->storage().read, storage.read);
  EXPECT_EQ(others->storage().write, storage.write);
  EXPECT_EQ(others->storage().read_work, storage.read_work);
  EXPECT_EQ(others->storage().write_work, storage.write_work);
  EXPECT_GT(others->replayed_seconds(), 0.0) << "it was measured again";
}

TEST_F(MeasuredTimes, ADamagedFileOfThemIsRefused) {
  const auto times = remember_times(make_measured_times(options_));
  times->storage();
  times->unit(local_->range(1, 1).front(), local_->input_sample(1), 16);
  const std::filesystem::path file = folder_.string() + "-times.json";
  times->save(file);
  std::ifstream in(file);
  const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    std::ofstream(file) << text;
    EXPECT_THROW(times->load(file), DataError) << to;
  };
  refused("\"measured\"", "\"predicted\"");
  refused("\"batch\": 1,", "\"batch\": 0,");
  refused("\"batch\": 1,", "\"batch\": 900,");
  refused("\"seconds\": ", "\"seconds\": -");
  refused("\"train\"", "\"brain\"");
  refused("{", "");
}

TEST_F(MeasuredTimes, AreRememberedWithWhatTheyTook) {
  options_.seconds_per_point = 0.0;
  const auto times = remember_times(make_measured_times(options_));
  const Timer timer;
  const PassTimes unit = times->unit(local_->range(1, 1).front(), local_->input_sample(1), 16);
  const double took = timer.seconds();
  EXPECT_EQ(times->replayed_seconds(), 0.0);
  const PassTimes again = times->unit(local_->range(1, 1).front(), local_->input_sample(1), 16);
  EXPECT_EQ(again.train.seconds(16), unit.train.seconds(16));
  EXPECT_GT(times->replayed_seconds(), 0.0);
  EXPECT_LE(times->replayed_seconds(), took);
  const double once = times->replayed_seconds();
  times->unit(local_->range(1, 1).front(), local_->input_sample(1), 8);  // another question
  times->unit(local_->range(2, 2).front(), local_->input_sample(2), 16);
  EXPECT_EQ(times->replayed_seconds(), once);
  EXPECT_EQ(times->storage().read, times->storage().read);
}

TEST_F(MeasuredTimes, StayWithinTheBudget) {
  options_.device.budget = 4096;
  const auto times = make_measured_times(options_);
  EXPECT_THROW(times->unit(local_->range(1, 1).front(), local_->input_sample(1), 64), OutOfBudget);
}

TEST(RememberedTimes, ClassifiersOfOneSizeMayComputeMore) {
  const auto net = nn::make_model("vgg11", {.input = {32, 32, 3}, .classes = 10, .width = 0.125});
  const auto unit = [&](nn::Module& classifier) {
    return LocalUnit{"conv1", net->units().front().get(), &classifier};
  };
  const Shape features = net->units().front()->output_shape({1, 32, 32, 3});
  const auto whole = make_conv_classifier("aux", features, 10, 16, 0);
  const auto averaged = make_conv_classifier("aux", features, 10, 16, 8);
  ASSERT_EQ(whole->parameter_count(), averaged->parameter_count());
  ASSERT_LT(averaged->flops(features), whole->flops(features));
  const DeviceSpeed speed{1e9, 1e20, 0.0, 1e20, {1e9, 1e9}};  // FLOPs alone count
  const auto times = remember_times(make_predicted_times({.threads = 1}, {}, speed));
  const double first = times->unit(unit(*whole), {32, 32, 3}, 8).train.seconds(8);
  EXPECT_LT(times->unit(unit(*averaged), {32, 32, 3}, 8).train.seconds(8), first);
  EXPECT_EQ(times->unit(unit(*whole), {32, 32, 3}, 8).train.seconds(8), first);
}

TEST(PredictedTimes, GrowWithFlopsAndWithTheBatch) {
  const auto net = nn::make_model("vgg11", {.input = {32, 32, 3}, .classes = 10});
  const DeviceSpeed speed{1e9, 1e20, 0.0, 1e20, {1e9, 1e9}};  // FLOPs alone count
  const auto times = make_predicted_times({.threads = 1}, {}, speed);
  const PassTimes whole = times->whole(*net, {}, 8);
  const double flops = static_cast<double>(net->flops(net->input_shape(1)));
  EXPECT_NEAR(whole.train.seconds(8), 3.0 * 8.0 * flops / 1e9, 1e-6 * flops / 1e9);
  EXPECT_NEAR(whole.evaluate.seconds(4), 4.0 * flops / 1e9, 1e-6 * flops / 1e9);
  EXPECT_STREQ(times->source(), "predicted");
}

}  // namespace
}  // namespace nf
