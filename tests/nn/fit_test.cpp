#include "nn/fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <utility>

#include "engine/error.h"
#include "nn/bp_trainer.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Some dozens of roundings of sums that stay below 300.
constexpr double kLossRounding = 64 * 300 * 0x1p-53;

/// Sample i is the image (i) with label i.
class Numbers : public BatchSource {
 public:
  explicit Numbers(std::int64_t count) : count_(count) {}

  Shape sample_shape() const override { return {1, 1, 1}; }
  std::int64_t count() const override { return count_; }
  void start(std::int64_t batch, std::int64_t epoch) override {
    batch_size_ = batch;
    next_ = 0;
    epochs.push_back(epoch);
  }
  const Batch* next() override {
    if (next_ == count_) return nullptr;
    batch_ = {};
    batch_.size = std::min(batch_size_, count_ - next_);
    for (std::int64_t i = 0; i < batch_.size; ++i, ++next_) {
      batch_.images.push_back(static_cast<float>(next_));
      batch_.labels.push_back(static_cast<std::int32_t>(next_));
    }
    return &batch_;
  }

  std::vector<std::int64_t> epochs;  // of each start

 private:
  std::int64_t count_, batch_size_ = 1, next_ = 0;
  Batch batch_;
};

/// A set of one image of zeros with label 0.
class OneImage : public BatchSource {
 public:
  explicit OneImage(const Shape& sample) : sample_(sample) {}

  Shape sample_shape() const override { return sample_; }
  std::int64_t count() const override { return 1; }
  void start(std::int64_t, std::int64_t) override { read_ = false; }
  const Batch* next() override {
    if (std::exchange(read_, true)) return nullptr;
    batch_.size = 1;
    batch_.images.assign(static_cast<std::size_t>(sample_.numel()), 0.0F);
    batch_.labels = {0};
    return &batch_;
  }

 private:
  Shape sample_;
  Batch batch_;
  bool read_ = false;
};

/// Two classifiers whose mean losses over a batch are its mean number and ten times that; the first
/// gets the even numbers right, the second none.
class Counter : public BatchTrainer {
 public:
  std::vector<std::string> outputs() const override { return {"one", "ten"}; }
  double learning_rate() const override { return 0.5; }
  StepResults train_batch(const Batch& batch, const StepOptions& step) override {
    sizes.push_back(batch.size);
    options.push_back(step);
    if (const auto now = static_cast<std::int64_t>(sizes.size()); now == nan_at)
      fail("the loss of {} is nan", outputs()[1]);
    else if (now == out_of_budget_at)
      throw OutOfBudget("pool: no room", 1, {}, 0, {});
    return results(batch);
  }
  StepResults evaluate_batch(const Batch& batch) override {
    evaluated.push_back(batch.size);
    StepResults all = results(batch);
    if (static_cast<std::int64_t>(evaluated.size()) == nan_evaluation_at)
      all[1].loss = std::nan("");
    return all;
  }

  std::vector<std::int64_t> sizes, evaluated;  // of batches
  std::vector<StepOptions> options;
  std::int64_t nan_at = 0, out_of_budget_at = 0;  // step, from 1
  std::int64_t nan_evaluation_at = 0;             // batch, from 1

 private:
  static StepResults results(const Batch& batch) {
    StepResult one;
    for (const std::int32_t label : batch.labels) {
      one.loss += static_cast<double>(label) / static_cast<double>(batch.size);
      one.correct += label % 2 == 0 ? 1 : 0;
    }
    return {one, {10 * one.loss, 0}};
  }
};

std::vector<double> factors(const Counter& trainer) {
  std::vector<double> all;
  for (const StepOptions& step : trainer.options) all.push_back(step.rate_factor);
  return all;
}

FitOptions passes(std::int64_t epochs, std::int64_t batch, const Schedule& schedule = {}) {
  FitOptions options;
  options.epochs = epochs;
  options.batch = batch;
  options.schedule = schedule;
  return options;
}

TEST(Fit, AShortLastBatchCountsByItsSamples) {
  Counter trainer;
  Numbers train(7), validation(5);
  const FitResult result = fit(trainer, train, &validation, passes(2, 3));
  EXPECT_THAT(trainer.sizes, ElementsAre(3, 3, 1, 3, 3, 1));
  EXPECT_THAT(trainer.evaluated, ElementsAre(3, 2, 3, 2));
  EXPECT_THAT(train.epochs, ElementsAre(1, 2));
  ASSERT_EQ(result.epochs.size(), 2U);
  for (const EpochMetrics& epoch : result.epochs) {
    ASSERT_EQ(epoch.outputs.size(), 2U);
    const OutputMetrics &one = epoch.outputs[0], &ten = epoch.outputs[1];
    EXPECT_EQ(one.name, "one");
    EXPECT_EQ(ten.name, "ten");
    // The mean of 0..6 and of 0..4, not of the batches' means.
    EXPECT_NEAR(one.train_loss, 3, kLossRounding);
    EXPECT_NEAR(ten.train_loss, 30, kLossRounding);
    EXPECT_NEAR(one.validation_loss, 2, kLossRounding);
    EXPECT_EQ(one.train_accuracy, 4.0 / 7);
    EXPECT_EQ(ten.train_accuracy, 0);
    EXPECT_EQ(one.validation_accuracy, 3.0 / 5);
    EXPECT_GE(epoch.train_seconds, 0);
    EXPECT_GT(epoch.images_per_second, 0);
  }
  EXPECT_EQ(result.epochs[0].epoch, 1);
  EXPECT_EQ(result.epochs[1].epoch, 2);
  EXPECT_NEAR(result.train_seconds, result.epochs[0].train_seconds + result.epochs[1].train_seconds,
              kLossRounding);
}

TEST(Fit, WithoutValidationItsFiguresAreZero) {
  Counter trainer;
  Numbers train(4);
  const FitResult result = fit(trainer, train, nullptr, passes(1, 64));
  EXPECT_THAT(trainer.sizes, ElementsAre(4));
  EXPECT_TRUE(trainer.evaluated.empty());
  EXPECT_EQ(result.epochs[0].outputs[0].validation_loss, 0);
  EXPECT_EQ(result.epochs[0].outputs[0].validation_accuracy, 0);
  EXPECT_EQ(result.evaluation_seconds, 0);
}

TEST(Fit, TheStepScheduleRunsOverAllEpochs) {
  Counter trainer;
  Numbers train(5);
  const FitResult result =
      fit(trainer, train, nullptr,
          passes(2, 2, {.kind = ScheduleKind::step, .step_size = 2, .gamma = 0.5}));
  EXPECT_THAT(factors(trainer), ElementsAre(1, 1, 0.5, 0.5, 0.25, 0.25));
  // Of each epoch's last step, times the trainer's own.
  EXPECT_EQ(result.epochs[0].learning_rate, 0.25);
  EXPECT_EQ(result.epochs[1].learning_rate, 0.125);
}

TEST(Fit, TheCosineScheduleKnowsTheNumberOfSteps) {
  Counter trainer;
  Numbers train(5);
  fit(trainer, train, nullptr, passes(2, 2, {.kind = ScheduleKind::cosine}));
  ASSERT_EQ(trainer.options.size(), 6U);
  for (std::size_t step = 0; step < 6; ++step)
    EXPECT_NEAR(trainer.options[step].rate_factor,
                (1 + std::cos(std::numbers::pi * static_cast<double>(step) / 6)) / 2,
                kLossRounding);
}

TEST(Fit, WarmUpComesFirst) {
  Counter trainer;
  Numbers train(3);
  fit(trainer, train, nullptr, passes(2, 1, {.warmup_steps = 4}));
  EXPECT_THAT(factors(trainer), ElementsAre(0.25, 0.5, 0.75, 1, 1, 1));
}

TEST(Fit, StepsGetTheSmoothingAndEachItsDropoutKey) {
  Counter trainer, again, other_seed;
  Numbers train(6);
  FitOptions options = passes(2, 2);
  options.label_smoothing = 0.25;
  options.seed = 5;
  fit(trainer, train, nullptr, options);
  fit(again, train, nullptr, options);
  options.seed = 6;
  fit(other_seed, train, nullptr, options);
  std::set<std::uint64_t> keys;
  for (std::size_t step = 0; step < 6; ++step) {
    EXPECT_EQ(trainer.options[step].label_smoothing, 0.25);
    EXPECT_EQ(trainer.options[step].dropout_key, again.options[step].dropout_key);
    keys.insert(trainer.options[step].dropout_key);
    keys.insert(other_seed.options[step].dropout_key);
  }
  EXPECT_EQ(keys.size(), 12U);
}

TEST(Fit, RefusesNonsense) {
  Counter trainer;
  Numbers train(3), empty(0);
  const auto run = [&](BatchSource& source, const FitOptions& options) {
    return [&, options] { fit(trainer, source, nullptr, options); };
  };
  EXPECT_THAT(run(train, passes(0, 64)),
              ThrowsMessage<Error>(HasSubstr("epochs must be at least 1, got 0")));
  EXPECT_THAT(run(train, passes(1, 0)),
              ThrowsMessage<Error>(HasSubstr("batch must be at least 1, got 0")));
  EXPECT_THAT(run(empty, passes(1, 64)), ThrowsMessage<Error>(HasSubstr("training set is empty")));
  EXPECT_TRUE(trainer.sizes.empty());
}

TEST(Fit, AFailedStepIsNamed) {
  Counter trainer;
  trainer.nan_at = 5;
  Numbers train(7), validation(2);
  std::int64_t epochs = 0;
  FitObserver observer;
  observer.on_epoch = [&](const EpochMetrics&) { ++epochs; };
  EXPECT_THAT([&] { fit(trainer, train, &validation, passes(3, 2), observer); },
              ThrowsMessage<Error>(AllOf(HasSubstr("epoch 2"), HasSubstr("step 5 of 12"),
                                         HasSubstr("the loss of ten is nan"))));
  EXPECT_EQ(trainer.sizes.size(), 5U) << "trained on after the failure";
  EXPECT_EQ(epochs, 1);
}

/// A net that is trained on images of (H, 1, 1) and averages them into one row fewer.
std::unique_ptr<Model> rows_model(std::int64_t rows) {
  std::vector<std::unique_ptr<Unit>> units;
  units.push_back(
      std::make_unique<Unit>("rows", 1, std::make_unique<AdaptiveAvgPool>(rows - 1, 1)));
  return std::make_unique<Model>("rows", ModelOptions{.input = {rows, 1, 1}, .classes = 2},
                                 std::move(units), make_classifier("linear", 1, 2));
}

// Launchers refuse what their index arithmetic can't count.
TEST(Fit, AStepWhoseKernelIsRefusedIsNamed) {
  constexpr std::int64_t kRows = std::int64_t{1} << 16;
  for (const test::DevicePath& path : test::device_paths()) {
    if (path.device == DeviceKind::cpu || !path.missing().empty()) continue;
    const auto model = rows_model(kRows);
    BpTrainer trainer(path.context(), *model, {}, 1);
    OneImage train({kRows, 1, 1});
    EXPECT_THAT([&] { fit(trainer, train, nullptr, passes(1, 1)); },
                ThrowsMessage<Error>(AllOf(HasSubstr("epoch 1 step 1 of 1: adaptive_avg_pool"),
                                           HasSubstr("below 2^31, got 4295032832"))))
        << path.name;
  }
}

TEST(Fit, AValidationLossThatIsNotFiniteIsNamed) {
  Counter trainer;
  trainer.nan_evaluation_at = 3;
  Numbers train(2), validation(4);
  EXPECT_THAT([&] { fit(trainer, train, &validation, passes(3, 2)); },
              ThrowsMessage<Error>(AllOf(HasSubstr("epoch 2"), HasSubstr("validation loss of ten"),
                                         HasSubstr("nan"))));
}

TEST(Fit, OutOfBudgetPassesThroughAsItIs) {
  Counter trainer;
  trainer.out_of_budget_at = 2;
  Numbers train(4);
  EXPECT_THAT([&] { fit(trainer, train, nullptr, passes(1, 2)); },
              ThrowsMessage<OutOfBudget>("pool: no room"));
}

TEST(Fit, ObserversSeeEveryStepAndEpochInOrder) {
  Counter trainer;
  Numbers train(5), validation(1);
  std::vector<std::string> calls;
  const FitObserver observer{
      .on_step =
          [&](const StepProgress& progress) {
            calls.push_back(fmt::format("step {}/{} of epoch {}/{}", progress.step, progress.steps,
                                        progress.epoch, progress.epochs));
            EXPECT_GT(progress.images_per_second, 0);
            EXPECT_GE(progress.seconds_left, 0);
            if (progress.step == progress.steps) {
              EXPECT_EQ(progress.seconds_left, 0);
            }
          },
      .on_epoch =
          [&](const EpochMetrics& metrics) {
            calls.push_back(fmt::format("epoch {}, loss {:.2f}, {} evaluated", metrics.epoch,
                                        metrics.outputs.at(0).train_loss,
                                        trainer.evaluated.size()));
          }};
  fit(trainer, train, &validation, passes(2, 3), observer);
  EXPECT_THAT(calls, ElementsAre("step 1/4 of epoch 1/2", "step 2/4 of epoch 1/2",
                                 "epoch 1, loss 2.00, 1 evaluated", "step 3/4 of epoch 2/2",
                                 "step 4/4 of epoch 2/2", "epoch 2, loss 2.00, 2 evaluated"));
}

// An observer may stop a run by throwing; what it throws is not taken for a failed step.
TEST(Fit, WhatAnObserverThrowsIsNotRenamed) {
  Counter trainer;
  Numbers train(4);
  FitObserver observer;
  observer.on_step = [](const StepProgress&) { fail("stopped"); };
  EXPECT_THAT([&] { fit(trainer, train, nullptr, passes(1, 2), observer); },
              ThrowsMessage<Error>("stopped"));
  EXPECT_EQ(trainer.sizes.size(), 1U);
}

TEST(Evaluate, WeighsBatchesByTheirSamples) {
  Counter trainer;
  Numbers source(8);
  for (const std::int64_t batch : {1, 3, 8, 100}) {
    const std::vector<OutputMetrics> metrics = evaluate(trainer, source, batch);
    ASSERT_EQ(metrics.size(), 2U);
    EXPECT_EQ(metrics[0].name, "one");
    EXPECT_NEAR(metrics[0].validation_loss, 3.5, kLossRounding);
    EXPECT_NEAR(metrics[1].validation_loss, 35, kLossRounding);
    EXPECT_EQ(metrics[0].validation_accuracy, 0.5);
    EXPECT_EQ(metrics[1].validation_accuracy, 0);
  }
  EXPECT_TRUE(trainer.sizes.empty()) << "evaluation trained";
}

}  // namespace
}  // namespace nf::nn
