#include "nn/checkpoint_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/memory/trace.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"
#include "tests/nn/context.h"
#include "tests/nn/trainers.h"

namespace nf::nn {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::uint64_t kCheckpointSeed = 3;
constexpr int kCheckpointSteps = 3;

struct Recomputed {
  std::vector<double> losses;
  std::int64_t correct = 0;
  StateDict state;  // running statistics and momentum of the gradients included
  std::int64_t peak = 0;
  bool operator==(const Recomputed& other) const {
    return losses == other.losses && correct == other.correct && state == other.state;
  }
};

/// Some steps with another batch and dropout key each.
template <typename Trainer, typename... Arguments>
Recomputed train(Model& model, Arguments... arguments) {
  const ContextPtr context = make_context();
  Trainer trainer(context, model, OptimizerOptions{.learning_rate = 0.02}, kCheckpointSeed,
                  arguments...);
  Recomputed trained;
  for (std::uint64_t step = 0; step < kCheckpointSteps; ++step) {
    const StepOptions options{.label_smoothing = 0.1, .dropout_key = 40 + step};
    const StepResult result =
        trainer.train_batch(random_batch(model.options(), 6, step), options).front();
    trained.losses.push_back(result.loss);
    trained.correct += result.correct;
  }
  trained.state = state_of(model);
  trained.peak = context->pool().stats().peak_reserved;
  return trained;
}

class CheckpointBits : public testing::TestWithParam<const char*> {};

// The same operators on the same values in the same order: batch norms see the same statistics,
// update the running ones once, and masks of dropout repeat.
TEST_P(CheckpointBits, AreThoseOfBackpropagationInHoweverManySegments) {
  const auto model = make_model(GetParam(), {.input = {32, 32, 3}, .width = 0.125, .dropout = 0.5});
  const Recomputed expected = train<BpTrainer>(*model);
  for (const std::int64_t count : {std::int64_t{1}, std::int64_t{2}, std::int64_t{3},
                                   model->unit_count() - 1, model->unit_count()})
    EXPECT_TRUE(train<CheckpointTrainer>(*model, even_segments(model->unit_count(), count)) ==
                expected)
        << count << " segments";
  EXPECT_TRUE(train<CheckpointTrainer>(*model, Segments{0, 1, 5}) == expected);
  EXPECT_TRUE(train<CheckpointTrainer>(*model) == expected);
}

INSTANTIATE_TEST_SUITE_P(Models, CheckpointBits,
                         testing::Values("vgg11", "resnet18", "mobilenet_v1", "mobilenet_v2"),
                         [](const auto& info) { return std::string(info.param); });

/// Units with a dropout inside, on either side of it parameters or none, and one that hands its
/// input on.
std::unique_ptr<Model> odd_model(bool parameters_first) {
  const ModelOptions options{.input = {6, 6, 3}, .classes = 3};
  std::vector<std::unique_ptr<Unit>> units;
  const auto add = [&](const char* name, std::int64_t channels, std::unique_ptr<Module> layer) {
    units.push_back(std::make_unique<Unit>(name, channels, std::move(layer)));
  };
  std::int64_t channels = 3;
  if (parameters_first) {
    add("conv", 4, std::make_unique<ConvBnAct>("conv", "bn", 3, 4, 3));
    channels = 4;
  }
  add("nothing", channels, std::make_unique<Dropout>("nothing", 0.0));
  add("pool", channels, std::make_unique<MaxPool>(Pool2dOptions{.kernel = 2}));
  add("dropout", channels, std::make_unique<Dropout>("dropout", 0.3));
  add("conv2", 5, std::make_unique<ConvBnAct>("conv2", "bn2", channels, 5, 3));
  return std::make_unique<Model>("odd", options, std::move(units), make_classifier("linear", 5, 3));
}

TEST(Checkpoint, UnitsWithoutParametersAndThoseThatChangeNothingAreUnits) {
  for (const bool parameters_first : {true, false}) {
    const auto model = odd_model(parameters_first);
    const Recomputed expected = train<BpTrainer>(*model);
    for (std::int64_t count = 1; count <= model->unit_count(); ++count)
      EXPECT_TRUE(train<CheckpointTrainer>(*model, even_segments(model->unit_count(), count)) ==
                  expected)
          << count << " segments";
  }
}

TEST(Checkpoint, SegmentsSaveMemory) {
  const auto model = make_model("vgg16", {.input = {32, 32, 3}, .width = 0.125});
  const std::int64_t bp = train<BpTrainer>(*model).peak;
  EXPECT_LE(train<CheckpointTrainer>(*model, Segments{0}).peak, bp);
  EXPECT_LT(train<CheckpointTrainer>(*model).peak, bp);
}

// What is inside a segment is gone when the next one begins, and the output of a segment that is
// computed again is not kept beside its gradient: counted, not estimated.
TEST(Checkpoint, KeepsBordersAndOneSegmentsActivations) {
  // Maps of 8x8x8 throughout; every unit is a convolution, which saves its input.
  constexpr std::int64_t kBatch = 4, kMap = kBatch * 8 * 8 * 8 * 4;
  std::vector<std::unique_ptr<Unit>> units;
  for (const char* name : {"a", "b", "c", "d", "e", "f"})
    units.push_back(std::make_unique<Unit>(
        name, 8, std::make_unique<Conv2d>(name, 8, 8, 3, ConvOptions{.padding = 1})));
  Model model("maps", {.input = {8, 8, 8}, .classes = 2}, std::move(units),
              make_classifier("linear", 8, 2));
  const ContextPtr context = make_context();
  CheckpointTrainer trainer(context, model, {}, kCheckpointSeed, {0, 2, 5});
  MemoryTrace trace;
  context->pool().set_trace(&trace);
  trainer.train_batch(random_batch(model.options(), kBatch), {});
  context->pool().set_trace(nullptr);
  std::map<std::string, std::int64_t> most;
  for (const MemoryEvent& event : trace.events()) {
    const auto bytes = [&](Category c) { return event.by_category[static_cast<std::size_t>(c)]; };
    std::int64_t& maps = most[std::string(event.phase)];
    maps = std::max(maps, (bytes(Category::activation) + bytes(Category::activation_gradient) +
                           bytes(Category::input)) /
                              kMap);
  }
  // Inputs of the three segments and the last one's output.
  EXPECT_EQ(most["forward"], 4);
  // Of the middle segment: inputs of two, two inner maps, the output and its gradient.
  EXPECT_EQ(most["recompute"], 6);
  // The same without the output.
  EXPECT_EQ(most["backward"], 5);
}

TEST(Checkpoint, ALossThatIsNotFiniteChangesNothing) {
  const auto model = plain_model();
  Batch batch = random_batch(model->options(), 5);
  batch.images[3] = std::numeric_limits<float>::quiet_NaN();
  const ContextPtr context = make_context();
  CheckpointTrainer trainer(context, *model, {}, kCheckpointSeed);
  const StateDict before = state_of(*model);
  const std::int64_t live = context->pool().stats().live;
  EXPECT_THAT([&] { trainer.train_batch(batch, {}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("loss of plain"), HasSubstr("nan"))));
  EXPECT_EQ(state_of(*model), before);
  EXPECT_EQ(context->pool().stats().live, live);
}

// In each of its phases in turn.
TEST(Checkpoint, AfterRunningOutOfBudgetASmallerBatchTrainsAsIfNothingHadHappened) {
  const auto model = plain_model(0.5);
  const Batch large = random_batch(model->options(), 64), small = random_batch(model->options(), 4);
  const Segments segments{0, 1, 2};
  std::map<std::string, std::int64_t> peaks;
  {
    const ContextPtr context = make_context();
    CheckpointTrainer trainer(context, *model, {}, kCheckpointSeed, segments);
    MemoryTrace trace;
    context->pool().set_trace(&trace);
    trainer.train_batch(large, {});
    context->pool().set_trace(nullptr);
    for (const MemoryEvent& event : trace.events()) {
      std::int64_t& peak = peaks[std::string(event.phase)];
      peak = std::max(peak, event.reserved);
    }
  }
  StateDict expected;
  {
    CheckpointTrainer fresh(make_context(), *model, {}, kCheckpointSeed, segments);
    fresh.train_batch(small, {});
    expected = state_of(*model);
  }
  bool gradients_were_there = false;
  for (const char* phase : {"forward", "recompute", "backward"}) {
    ASSERT_GT(peaks[phase], 0) << phase;
    const ContextPtr context = make_context(peaks[phase] - 1);
    CheckpointTrainer trainer(context, *model, {}, kCheckpointSeed, segments);
    const StateDict before = state_of(*model);
    const std::int64_t live = context->pool().stats().live;
    try {
      trainer.train_batch(large, {});
      FAIL() << phase << " fits a budget one byte below its peak";
    } catch (const OutOfBudget& error) {
      gradients_were_there |=
          error.stats.by_category[static_cast<std::size_t>(Category::gradient)] > 0;
    }
    EXPECT_EQ(state_of(*model), before) << phase;
    EXPECT_EQ(context->pool().stats().live, live) << phase;
    trainer.train_batch(small, {});
    EXPECT_EQ(state_of(*model), expected) << phase;
  }
  EXPECT_TRUE(gradients_were_there);
}

TEST(Segments, AreEvenLongerOnesFirst) {
  EXPECT_THAT(even_segments(8, 1), ElementsAre(0));
  EXPECT_THAT(even_segments(8, 3), ElementsAre(0, 3, 6));
  EXPECT_THAT(even_segments(7, 3), ElementsAre(0, 3, 5));
  EXPECT_THAT(even_segments(3, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(sqrt_segments(1), ElementsAre(0));
  EXPECT_THAT(sqrt_segments(9), ElementsAre(0, 3, 6));
  EXPECT_THAT(sqrt_segments(13), ElementsAre(0, 4, 7, 10));
}

TEST(Segments, NonsenseIsRefused) {
  for (const std::int64_t count : {0, 4})
    EXPECT_THAT([&] { even_segments(3, count); },
                ThrowsMessage<Error>(HasSubstr(fmt::format("{} segments of 3 units", count))));
  const auto model = plain_model();
  const ContextPtr context = make_context();
  const auto make = [&](const Segments& segments) {
    return [&, segments] { CheckpointTrainer(context, *model, {}, kCheckpointSeed, segments); };
  };
  EXPECT_THAT(make({1, 2}), ThrowsMessage<Error>(HasSubstr("must start at unit 0, got 1")));
  EXPECT_THAT(make({0, 3}), ThrowsMessage<Error>(HasSubstr("segment 1 must start after unit 0 and "
                                                           "before unit 3, got 3")));
  EXPECT_THROW(make({0, 0})(), Error);
  EXPECT_THROW(make({0, 2, 1})(), Error);
  EXPECT_THROW(check_segments({}, 3), Error);
  EXPECT_FALSE(model->materialized());
}

}  // namespace
}  // namespace nf::nn
