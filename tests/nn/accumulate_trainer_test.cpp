#include "nn/accumulate_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "nn/bp_trainer.h"
#include "nn/models/registry.h"
#include "tests/nn/context.h"
#include "tests/nn/trainers.h"

namespace nf::nn {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::uint64_t kSeed = 3;
// Of f32: half the distance of neighbouring numbers, relative.
constexpr double kRounding = 0x1p-24;
// At this rate, without momentum and decay, an update is the gradient itself.
const OptimizerOptions kGradient{.learning_rate = 1, .momentum = 0, .weight_decay = 0};

struct Trained {
  StepResult result;
  StateDict state;
};

/// One step of BP on the batch at once.
Trained at_once(Model& model, const Batch& batch, const StepOptions& options = {},
                const OptimizerOptions& optimizer = kGradient) {
  BpTrainer trainer(make_context(), model, optimizer, kSeed);
  const StepResult result = trainer.train_batch(batch, options).front();
  return {result, state_of(model)};
}

Trained accumulated(Model& model, const Batch& batch, std::int64_t micro_batch,
                    const StepOptions& options = {},
                    const OptimizerOptions& optimizer = kGradient) {
  AccumulateTrainer trainer(make_context(), model, optimizer, kSeed, micro_batch);
  const StepResult result = trainer.train_batch(batch, options).front();
  return {result, state_of(model)};
}

TEST(Accumulate, OneMicroBatchIsBackpropagationBitForBit) {
  const auto model = make_model("resnet18", {.input = {16, 16, 3}, .width = 0.125, .dropout = 0.5});
  const Batch batch = random_batch(model->options(), 5);
  const StepOptions options{.rate_factor = 0.1, .label_smoothing = 0.1, .dropout_key = 7};
  const Trained expected = at_once(*model, batch, options, {});
  for (const std::int64_t micro_batch : {5, 64}) {
    const Trained actual = accumulated(*model, batch, micro_batch, options, {});
    EXPECT_EQ(actual.result.loss, expected.result.loss);
    EXPECT_EQ(actual.result.correct, expected.result.correct);
    EXPECT_EQ(actual.state, expected.state);
  }
}

// A gradient is a sum over samples and positions of the map, and both ways add up the same terms in
// another order. No term's size is known, but those of the samples' own gradients are: a sum of K
// terms is off by some sqrt(K) roundings of the sum of their sizes. Each layer on the way back adds
// the like, and applying the update rounds the weight once.
TEST(Accumulate, WithoutBatchNormTheGradientIsTheBatchs) {
  const auto model = plain_model();
  const Batch batch = random_batch(model->options(), 7);
  model->materialize(make_context(), kSeed);
  const StateDict first = state_of(*model);
  model->release();
  std::map<std::string, std::vector<double>> sums;
  for (std::int64_t i = 0; i < batch.size; ++i)
    for (const auto& [name, value] : at_once(*model, part_of(batch, i, i + 1)).state) {
      sums[name].resize(value.values.size());
      for (std::size_t k = 0; k < value.values.size(); ++k)
        sums[name][k] += std::abs(double{value.values[k]} - double{first.at(name).values[k]}) / 7;
    }
  const Trained expected = at_once(*model, batch);
  constexpr double kTerms = 7 * 8 * 6, kLayers = 4;
  for (const std::int64_t micro_batch : {1, 2, 3, 4, 6}) {
    const Trained actual = accumulated(*model, batch, micro_batch);
    EXPECT_NEAR(actual.result.loss, expected.result.loss,
                kLayers * std::sqrt(kTerms) * kRounding * expected.result.loss);
    EXPECT_EQ(actual.result.correct, expected.result.correct);
    for (const auto& [name, value] : expected.state) {
      const double size = *std::max_element(sums[name].begin(), sums[name].end());
      ASSERT_GT(size, 0) << name;
      const double tolerance = 2 * kLayers * std::sqrt(kTerms) * kRounding * size;
      for (std::size_t k = 0; k < value.values.size(); ++k)
        ASSERT_NEAR(actual.state.at(name).values[k], value.values[k],
                    tolerance + 2 * kRounding * std::abs(double{value.values[k]}))
            << name << " at " << k << ", micro-batches of " << micro_batch;
    }
  }
}

// Batch norm sees the micro-batch: so the rule itself is written out, and bits are compared.
TEST(Accumulate, WithBatchNormItIsTheLoopWrittenOut) {
  const auto model = make_model("mobilenet_v1", {.input = {16, 16, 3}, .width = 0.125});
  const Batch batch = random_batch(model->options(), 7);
  const OptimizerOptions optimizer{.learning_rate = 0.1};
  constexpr std::int64_t kMicroBatch = 3;
  Trained expected;
  {
    const ContextPtr context = make_context();
    model->materialize(context, kSeed);
    Optimizer update(model->parameters(), optimizer);
    for (std::int64_t begin = 0; begin < 7; begin += kMicroBatch) {
      const Batch part = part_of(batch, begin, std::min<std::int64_t>(7, begin + kMicroBatch));
      const double share = static_cast<double>(part.size) / 7;
      const DeviceBatch staged = stage_batch(context, host_batch(part, model->options().input));
      Tape tape;
      const Tensor logits = model->forward({.tape = &tape, .training = true}, staged.images);
      const CrossEntropy loss = softmax_cross_entropy_with_gradient(&tape, logits, staged.labels);
      tape.backward(loss.loss, Tensor::full(context, {1}, share));
      expected.result.loss += share * static_cast<double>(loss.loss.to_host<float>()[0]);
      expected.result.correct += loss.correct.to_host<std::int32_t>()[0];
    }
    update.step();
    expected.state = state_of(*model);
    update.zero_grad();
  }
  model->release();
  const Trained actual = accumulated(*model, batch, kMicroBatch, {}, optimizer);
  EXPECT_EQ(actual.result.loss, expected.result.loss);
  EXPECT_EQ(actual.result.correct, expected.result.correct);
  EXPECT_EQ(actual.state, expected.state);
}

// With masks alike, two equal samples would give the gradient of one.
TEST(Accumulate, EachMicroBatchHasDropoutMasksOfItsOwn) {
  const auto model = plain_model(0.5);
  const Batch one = random_batch(model->options(), 1);
  Batch twice = one;
  twice.size = 2;
  twice.images.insert(twice.images.end(), one.images.begin(), one.images.end());
  twice.labels.push_back(one.labels[0]);
  const StepOptions options{.dropout_key = 11};
  const Trained single = at_once(*model, one, options);
  EXPECT_NE(accumulated(*model, twice, 1, options).state, single.state);
  // Where nothing is dropped they do: halves of two equal gradients.
  const auto undropped = plain_model();
  EXPECT_EQ(accumulated(*undropped, twice, 1, options).state,
            at_once(*undropped, one, options).state);
}

TEST(Accumulate, EvaluationIsTheBatchs) {
  const auto model = make_model("vgg11", {.input = {32, 32, 1}, .width = 0.125});
  const Batch batch = random_batch(model->options(), 7);
  StepResult expected;
  {
    BpTrainer trainer(make_context(), *model, {}, kSeed);
    expected = trainer.evaluate_batch(batch).front();
  }
  const ContextPtr context = make_context();
  AccumulateTrainer trainer(context, *model, {}, kSeed, 3);
  const StepResult actual = trainer.evaluate_batch(batch).front();
  EXPECT_EQ(actual.correct, expected.correct);
  // Logits of the two may differ by the roundings of nine layers, sums of at most 9 * 64 terms.
  EXPECT_NEAR(actual.loss, expected.loss, 9 * std::sqrt(9.0 * 64) * kRounding * expected.loss);
}

TEST(Accumulate, ALossThatIsNotFiniteInTheLastMicroBatchChangesNothing) {
  const auto model = plain_model();
  Batch batch = random_batch(model->options(), 5);
  batch.images.back() = std::numeric_limits<float>::quiet_NaN();
  const ContextPtr context = make_context();
  AccumulateTrainer trainer(context, *model, {}, kSeed, 2);
  const StateDict before = state_of(*model);
  const std::int64_t live = context->pool().stats().live;
  EXPECT_THAT([&] { trainer.train_batch(batch, {}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("loss of plain"), HasSubstr("nan"))));
  EXPECT_EQ(state_of(*model), before);
  EXPECT_EQ(context->pool().stats().live, live) << "gradients are left";
}

TEST(Accumulate, AfterRunningOutOfBudgetABatchTrainsAsIfNothingHadHappened) {
  const auto model = plain_model();
  const Batch large = random_batch(model->options(), 64), small = random_batch(model->options(), 4);
  const auto peak = [&](std::int64_t micro_batch) {
    const ContextPtr context = make_context();
    AccumulateTrainer trainer(context, *model, {}, kSeed, micro_batch);
    trainer.train_batch(large, {});
    return context->pool().stats().peak_reserved;
  };
  // One micro-batch alone fits: its gradients are there when the second asks for memory.
  const std::int64_t one = peak(64), two = peak(32);
  ASSERT_LT(two, one);
  const ContextPtr context = make_context(two - 1);
  AccumulateTrainer trainer(context, *model, {}, kSeed, 32);
  const StateDict before = state_of(*model);
  const std::int64_t live = context->pool().stats().live;
  try {
    trainer.train_batch(large, {});
    FAIL() << "the step fits a budget one byte below its peak";
  } catch (const OutOfBudget& error) {
    EXPECT_GT(error.stats.by_category[static_cast<std::size_t>(Category::gradient)], 0)
        << error.what();
  }
  EXPECT_EQ(state_of(*model), before);
  EXPECT_EQ(context->pool().stats().live, live);
  trainer.train_batch(small, {});
  const StateDict after = state_of(*model);

  const auto fresh_model = plain_model();
  AccumulateTrainer fresh(make_context(), *fresh_model, {}, kSeed, 32);
  fresh.train_batch(small, {});
  EXPECT_EQ(after, state_of(*fresh_model));
}

TEST(Accumulate, RefusesNonsense) {
  const auto model = plain_model();
  const ContextPtr context = make_context();
  for (const std::int64_t micro_batch : {0, -1})
    EXPECT_THAT(([&] { AccumulateTrainer(context, *model, {}, kSeed, micro_batch); }),
                ThrowsMessage<Error>(
                    HasSubstr(fmt::format("micro-batch must be at least 1, got {}", micro_batch))));
  EXPECT_FALSE(model->materialized());
  AccumulateTrainer trainer(context, *model, {}, kSeed, 2);
  const HostBatch none{.size = 0, .sample = model->options().input};
  EXPECT_THAT([&] { trainer.train(none, {}); },
              ThrowsMessage<Error>(HasSubstr("at least one sample, got 0")));
  EXPECT_THROW(trainer.evaluate(none), Error);
}

}  // namespace
}  // namespace nf::nn
