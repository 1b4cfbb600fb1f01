// Trainings that go on from a saved state have the bits of one that was never cut off.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "neuroflux/checkpoint.h"
#include "nn/bp_trainer.h"
#include "tests/neuroflux/local_training.h"
#include "tests/support/expect.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using testing::HasSubstr;

/// What was told of every epoch, times left out.
struct Told {
  std::string stage;
  std::int64_t epoch = 0;
  double rate = 0.0;
  std::vector<double> figures;
  bool operator==(const Told&) const = default;
};

Told told(const Stage& stage, const nn::EpochMetrics& metrics) {
  Told told{describe(stage), metrics.epoch, metrics.learning_rate, {}};
  for (const nn::OutputMetrics& output : metrics.outputs)
    for (const double figure : {output.train_loss, output.train_accuracy, output.validation_loss,
                                output.validation_accuracy})
      told.figures.push_back(figure);
  return told;
}

class Resume : public LocalTraining {
 protected:
  struct Moment {
    TrainingState state;
    std::size_t told = 0;  // epochs until then
    fs::path caches;       // a copy of what lay there
  };

  void SetUp() override {
    LocalTraining::SetUp();
    training_.optimizer.kind = nn::OptimizerKind::adamw;
    training_.optimizer.learning_rate = 0.005;
    budget_ = 900 << 10;
  }

  TrainingObserver remember(std::vector<Told>& all) const {
    return {.on_epoch = [&all](const Stage& stage, const nn::EpochMetrics& metrics) {
      all.push_back(told(stage, metrics));
    }};
  }

  // Trains once, then again from each state that was saved.
  void expect_the_same_from_everywhere(bool with_caches) {
    std::vector<Told> whole;
    std::vector<Moment> moments;
    const LocalResult uncut = train(
        remember(whole), 1, {.save = [&](const TrainingState& state) {
          moments.push_back(
              {state, whole.size(), folder_ / fmt::format("caches-{}", moments.size())});
          if (fs::exists(training_.cache_folder))
            fs::copy(training_.cache_folder, moments.back().caches, fs::copy_options::recursive);
        }});
    ASSERT_EQ(moments.size(), blocks_ * (static_cast<std::size_t>(training_.epochs) + 1));
    for (const Moment& moment : moments) {
      SCOPED_TRACE(fmt::format("{} blocks and {} epochs done", moment.state.blocks.size(),
                               moment.state.epochs.size()));
      if (with_caches && fs::exists(moment.caches))
        fs::copy(moment.caches, training_.cache_folder, fs::copy_options::recursive);
      std::vector<Told> rest;
      TrainingObserver observer = remember(rest);
      std::size_t made_again = 0;
      observer.on_message = [&](const std::string&) { ++made_again; };
      const LocalResult result = train(observer, 1, {.from = &moment.state});
      const std::size_t done = moment.state.blocks.size();
      EXPECT_EQ(made_again, !with_caches && done > 0 && done < blocks_ ? 1U : 0U);
      const auto first = whole.begin() + static_cast<std::ptrdiff_t>(moment.told);
      EXPECT_EQ(rest, std::vector<Told>(first, whole.end()));
      EXPECT_EQ(result.weights, uncut.weights);
      EXPECT_EQ(result.test_accuracy, uncut.test_accuracy);
      EXPECT_EQ(result.chosen, uncut.chosen);
      ASSERT_EQ(result.blocks.size(), uncut.blocks.size());
      for (std::size_t k = 0; k < result.blocks.size(); ++k)
        EXPECT_EQ(result.blocks[k].measured_peak_bytes, result.blocks[k].plan.predicted_peak_bytes);
      EXPECT_FALSE(fs::exists(training_.cache_folder)) << "something was left in the cache";
    }
  }
};

TEST_F(Resume, FromEveryStateWithTheCachesThatLayThere) { expect_the_same_from_everywhere(true); }

TEST_F(Resume, FromEveryStateWithoutTheCaches) { expect_the_same_from_everywhere(false); }

TEST_F(Resume, FromEveryStateWithSeveralAugmentedViews) {
  views_ = 2;
  expect_the_same_from_everywhere(false);
}

TEST_F(Resume, CachesInMemoryAreMadeAgain) {
  training_.cache_place = CachePlace::memory;
  expect_the_same_from_everywhere(false);
}

TEST_F(Resume, ACacheOfOtherWeightsOrImagesIsMadeAgain) {
  TrainingState kept;
  const fs::path caches = folder_ / "caches";
  train({}, 1, {.save = [&](const TrainingState& state) {
          if (state.blocks.size() != 1 || !state.epochs.empty()) return;
          kept = state;
          fs::copy(training_.cache_folder, caches, fs::copy_options::recursive);
        }});
  const auto made_again = [&] {
    fs::copy(caches, training_.cache_folder, fs::copy_options::recursive);
    std::vector<std::string> messages;
    train({.on_message = [&](const std::string& message) { messages.push_back(message); }}, 1,
          {.from = &kept});
    EXPECT_THAT(messages, testing::Each(HasSubstr("the blocks before it compute it again")));
    return messages.size();
  };
  EXPECT_EQ(made_again(), 0U);
  float& weight = kept.trained.at("features.0.weight").values.at(0);
  const float own = weight;
  weight = own + 0.125F;
  EXPECT_EQ(made_again(), 1U);
  weight = own;
  images_ = 6;
  EXPECT_EQ(made_again(), 1U);
}

TEST_F(Resume, AStateOfAnotherNetIsRefusedByTheNameThatIsMissing) {
  TrainingState kept;
  train({}, 1, {.save = [&](const TrainingState& state) {
          if (state.blocks.empty()) kept = state;
        }});
  ASSERT_FALSE(kept.weights.empty());
  kept.weights.erase(kept.weights.begin());
  EXPECT_THAT(error_text([&] { train({}, 1, {.from = &kept}); }), HasSubstr(" is missing"));
}

class CheckpointFile : public LocalTraining {
 protected:
  void SetUp() override {
    LocalTraining::SetUp();
    fs::create_directories(folder_);
    const nn::TrainingData data = this->data();
    plan_ = make(data);
    const LocalNet local(*net_, *rule_, plan_);
    int saved = 0;
    // In the second block: everything that a checkpoint can have is there.
    train_locally(Context::create(device()), local, plan_, data, training_, {},
                  {.save = [&](const TrainingState& state) {
                    if (++saved == 4) state_ = state;
                  }});
    state_.partial.evaluation_wait_seconds = 0.125;  // however long it was
    progress_.plan = "of a plan";
    progress_.training = "of options";
    progress_.data = "of images";
    progress_.metrics_bytes = 1234;
    progress_.elapsed_seconds = 56.75;
    progress_.energy_joules = 8.5;
    MethodSummary method;
    method.name = "neuroflux";
    method.fits = true;
    method.history = {{1.0 / 3.0, 0.1, 0.5}};
    method.unit_count = static_cast<std::int64_t>(plan_.units.size());
    progress_.methods = {method};
    write_checkpoint(folder_, progress_, &state_);
  }

  std::string bytes() const {
    std::ifstream in(checkpoint_file(folder_), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  void put(const std::string& bytes) const {
    std::ofstream(checkpoint_file(folder_), std::ios::binary) << bytes;
  }
  std::optional<Checkpoint> read() const { return read_checkpoint(folder_, {&plan_}); }

  Plan plan_;
  TrainingState state_;
  Progress progress_;
};

TEST_F(CheckpointFile, HoldsAllToTheBit) {
  const std::optional<Checkpoint> found = read();
  ASSERT_TRUE(found && found->state);
  EXPECT_EQ(found->plan, progress_.plan);
  EXPECT_EQ(found->training, progress_.training);
  EXPECT_EQ(found->data, progress_.data);
  EXPECT_EQ(found->metrics_bytes, 1234);
  EXPECT_EQ(found->elapsed_seconds, 56.75);
  EXPECT_EQ(found->energy_joules, 8.5);
  ASSERT_EQ(found->methods.size(), 1U);
  EXPECT_EQ(found->methods[0].history.at(0).elapsed_seconds, 1.0 / 3.0);
  ASSERT_FALSE(state_.trained.empty());
  EXPECT_EQ(found->state->trained, state_.trained);
  EXPECT_EQ(found->state->weights, state_.weights);
  EXPECT_EQ(found->state->optimizer, state_.optimizer);
  ASSERT_EQ(found->state->blocks.size(), 1U);
  EXPECT_EQ(found->state->blocks[0].measured_peak_bytes, state_.blocks[0].measured_peak_bytes);
  EXPECT_EQ(found->state->blocks[0].train_seconds, state_.blocks[0].train_seconds);
  EXPECT_EQ(found->state->partial.evaluation_wait_seconds, 0.125);
  ASSERT_EQ(found->state->epochs.size(), state_.epochs.size());
  EXPECT_EQ(told({}, found->state->epochs[0]), told({}, state_.epochs[0]));
  EXPECT_EQ(found->state->exits.size(), state_.exits.size());
}

TEST_F(CheckpointFile, ThereMayBeNone) {
  remove_checkpoint(folder_);
  remove_checkpoint(folder_);
  EXPECT_FALSE(read().has_value());
}

TEST_F(CheckpointFile, AnyFlippedBitIsFound) {
  const std::string whole = bytes();
  const std::size_t header = whole.find("}}  ") == std::string::npos ? 4096 : whole.find("}}  ");
  for (std::size_t at = 0; at < whole.size(); at += at < header ? 61 : 4099) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    put(damaged);
    EXPECT_THROW(read(), Error) << "byte " << at;
  }
}

TEST_F(CheckpointFile, ATruncatedOneIsRefused) {
  const std::string whole = bytes();
  for (std::size_t length = 0; length < whole.size(); length += 1 + whole.size() / 97) {
    put(whole.substr(0, length));
    EXPECT_THROW(read(), Error) << length << " bytes";
  }
}

TEST_F(CheckpointFile, AnotherPlanThanItsOwnIsRefused) {
  plan_.blocks.clear();
  EXPECT_THAT(error_text([&] { read(); }), HasSubstr("blocks"));
}

}  // namespace
}  // namespace nf
