#include "nn/train_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "engine/memory/trace.h"
#include "engine/random.h"
#include "nn/bp_trainer.h"
#include "nn/layers.h"
#include "nn/stage_batch.h"
#include "tests/nn/context.h"

namespace nf::nn {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::uint64_t kSeed = 3;
const Shape kSample{8, 7, 2};
constexpr std::int64_t kClasses = 3;

/// Random images, sample i of class i % kClasses.
struct StepImages {
  explicit StepImages(std::int64_t count) : count(count) {
    RandomStream random(random_key(kSeed, Purpose::test));
    for (std::int64_t i = 0; i < count * kSample.numel(); ++i) pixels.push_back(random.normal());
    for (std::int64_t i = 0; i < count; ++i)
      labels.push_back(static_cast<std::int32_t>(i % kClasses));
  }
  DeviceBatch on(const ContextPtr& context) const {
    return stage_batch(
        context,
        {.size = count, .sample = kSample, .images = pixels.data(), .labels = labels.data()});
  }
  std::int64_t count;
  std::vector<float> pixels;
  std::vector<std::int32_t> labels;
};

/// Two convolutions and a classifier on a context, with an optimizer. The second convolution's
/// backward pass needs more memory than the whole forward pass.
class Net {
 public:
  explicit Net(const ContextPtr& context) {
    body_.emplace<Conv2d>("conv1", kSample[2], 8, 1)
        .emplace<Conv2d>("conv2", 8, 8, 1)
        .emplace<MaxPool>();
    head_.emplace<Flatten>().emplace<Linear>("linear", 4 * 3 * 8, kClasses);
    body_.materialize(context, kSeed);
    head_.materialize(context, kSeed);
    std::vector<Parameter*> parameters = body_.parameters();
    for (Parameter* parameter : head_.parameters()) parameters.push_back(parameter);
    optimizer_ = std::make_unique<Optimizer>(parameters, OptimizerOptions{.learning_rate = 0.005});
  }

  Trainable trainable() { return {"net", &body_, &head_, optimizer_.get()}; }
  StepResult train(const ContextPtr& context, const StepImages& images) {
    auto [x, labels] = images.on(context);
    return train_step(trainable(), std::move(x), labels, {});
  }
  StateDict state() const {
    StateDict state;
    body_.save(state);
    head_.save(state);
    optimizer_->save_state(state);
    return state;
  }

 private:
  Sequential body_, head_;
  std::unique_ptr<Optimizer> optimizer_;
};

TEST(TrainStep, TheLossFalls) {
  const ContextPtr context = make_context();
  Net net(context);
  const StepImages images(6);
  const std::int64_t live = context->pool().stats().live;
  const StepResult first = net.train(context, images);
  StepResult last;
  for (int step = 0; step < 60; ++step) last = net.train(context, images);
  EXPECT_GT(first.loss, 0);
  EXPECT_LT(last.loss, first.loss / 2);
  EXPECT_EQ(last.correct, 6);
  EXPECT_EQ(context->pool().stats().live, live) << "a step kept memory";
  auto [x, labels] = images.on(context);
  const StepResult evaluated = evaluate_step(net.trainable(), std::move(x), labels);
  EXPECT_EQ(evaluated.correct, 6);
  EXPECT_LT(evaluated.loss, first.loss / 2);
}

TEST(TrainStep, LeavesTheDetachedOutputOfTheBody) {
  const ContextPtr context = make_context();
  Net net(context), same(context);
  const StepImages images(4);
  Tensor output;
  {
    auto [x, labels] = images.on(context);
    train_step(net.trainable(), std::move(x), labels, {}, &output);
  }
  EXPECT_EQ(output.shape(), (Shape{4, 4, 3, 8}));
  EXPECT_FALSE(output.requires_grad());
  // From before the update, and there is no batch norm to tell training from evaluation.
  Tensor expected;
  EXPECT_EQ(evaluate_step(same.trainable(), images.on(context).images, {}, &expected).loss, 0);
  EXPECT_EQ(output.to_host<float>(), expected.to_host<float>());
}

TEST(TrainStep, ALossThatIsNotFiniteChangesNothing) {
  const ContextPtr context = make_context();
  Net net(context);
  StepImages images(4);
  images.pixels[5] = std::numeric_limits<float>::quiet_NaN();
  const StateDict before = net.state();
  const std::int64_t live = context->pool().stats().live;
  EXPECT_THAT([&] { net.train(context, images); },
              ThrowsMessage<Error>(AllOf(HasSubstr("loss of net"), HasSubstr("nan"))));
  EXPECT_EQ(net.state(), before);
  EXPECT_EQ(context->pool().stats().live, live);
}

// What a step reserves at most, and up to the end of its forward pass.
struct Peaks {
  std::int64_t whole = 0, forward = 0;
};

Peaks peaks_of(const StepImages& images) {
  const ContextPtr context = make_context();
  Net net(context);
  MemoryTrace trace;
  context->pool().set_trace(&trace);
  net.train(context, images);
  context->pool().set_trace(nullptr);
  Peaks peaks;
  for (const MemoryEvent& event : trace.events()) {
    peaks.whole = std::max(peaks.whole, event.reserved);
    if (event.phase != "backward" && event.phase != "update")
      peaks.forward = std::max(peaks.forward, event.reserved);
  }
  return peaks;
}

// A step that runs out of memory on its way back has set some gradients already: a caller who goes
// on with a smaller batch must not find them in its first step.
TEST(TrainStep, AfterRunningOutOfBudgetASmallerBatchTrainsAsIfNothingHadHappened) {
  const StepImages large(32), small(4);
  const Peaks peaks = peaks_of(large);
  ASSERT_LT(peaks.forward, peaks.whole);

  const ContextPtr context = make_context(peaks.whole - 1);
  Net net(context);
  const StateDict before = net.state();
  const std::int64_t live = context->pool().stats().live;
  try {
    net.train(context, large);
    FAIL() << "the step fits a budget one byte below its peak";
  } catch (const OutOfBudget& error) {
    EXPECT_GT(error.stats.by_category[static_cast<std::size_t>(Category::gradient)], 0)
        << "no gradient had been set: " << error.what();
  }
  EXPECT_EQ(net.state(), before);
  EXPECT_EQ(context->pool().stats().live, live) << "the failed step kept memory";

  const ContextPtr fresh_context = make_context(peaks.whole - 1);
  Net fresh(fresh_context);
  for (int step = 0; step < 3; ++step)
    EXPECT_EQ(net.train(context, small).loss, fresh.train(fresh_context, small).loss);
  EXPECT_EQ(net.state(), fresh.state());
}

std::set<std::string> units_of(const MemoryTrace& trace) {
  std::set<std::string> units;
  for (const MemoryEvent& event : trace.events()) units.insert(event.unit);
  return units;
}

TEST(TrainStep, EveryEventBearsAName) {
  const ContextPtr context = make_context();
  Net net(context);
  const StepImages images(4);
  DeviceBatch trained = images.on(context), evaluated = images.on(context);
  MemoryTrace trace;
  context->pool().set_trace(&trace);
  train_step(net.trainable(), std::move(trained.images), trained.labels, {});
  evaluate_step(net.trainable(), std::move(evaluated.images), evaluated.labels);
  context->pool().set_trace(nullptr);
  EXPECT_THAT(units_of(trace), testing::ElementsAre("net"));
}

class Backpropagation : public testing::Test {
 protected:
  static Model make_model() {
    std::vector<std::unique_ptr<Unit>> units;
    units.push_back(std::make_unique<Unit>(
        "unit", 4, std::make_unique<ConvBnAct>("conv", "bn", kSample[2], 4, 3)));
    return {"whole",
            {.input = kSample, .classes = kClasses},
            std::move(units),
            make_classifier("linear", 4, kClasses)};
  }
  Batch batch() const {
    Batch batch;
    batch.size = images_.count;
    batch.images = images_.pixels;
    batch.labels = images_.labels;
    return batch;
  }

  ContextPtr context_ = make_context();
  StepImages images_{4};
};

TEST_F(Backpropagation, EveryEventBearsTheNameOfAUnitOrOfTheNet) {
  Model model = make_model();
  MemoryTrace trace;
  context_->pool().set_trace(&trace);
  BpTrainer trainer(context_, model, {}, kSeed);
  trainer.train_batch(batch(), {});
  trainer.evaluate_batch(batch());
  context_->pool().set_trace(nullptr);
  EXPECT_THAT(units_of(trace), testing::ElementsAre("head", "unit", "whole"));
}

TEST_F(Backpropagation, ABatchMustHoldWhatItsSizeSays) {
  Model model = make_model();
  BpTrainer trainer(context_, model, {}, kSeed);
  Batch few = batch(), unlabelled = batch(), many = batch();
  few.images.pop_back();
  unlabelled.labels.clear();
  many.size = 3;
  for (const Batch& wrong : {few, unlabelled, many}) {
    EXPECT_THAT([&] { trainer.train_batch(wrong, {}); },
                ThrowsMessage<Error>(HasSubstr("samples of [8,7,2] must come with")));
    EXPECT_THROW(trainer.evaluate_batch(wrong), Error);
  }
  EXPECT_THAT([&] { trainer.train_batch(few, {}); },
              ThrowsMessage<Error>("batch: 4 samples of [8,7,2] must come with 448 values and 4 "
                                   "labels, got 447 and 4"));
}

}  // namespace
}  // namespace nf::nn
