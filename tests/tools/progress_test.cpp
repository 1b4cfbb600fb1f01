#include "tools/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace nf::tools {
namespace {

using testing::HasSubstr;

/// What was written to a temporary file.
class Sink {
 public:
  ~Sink() { std::fclose(file_); }
  std::FILE* file() const { return file_; }
  std::string text() const {
    std::string all(static_cast<std::size_t>(std::ftell(file_)), '\0');
    std::rewind(file_);
    return all.substr(0, std::fread(all.data(), 1, all.size(), file_));
  }

 private:
  std::FILE* file_ = std::tmpfile();
};

const Stage kStage{"neuroflux", 2, 3};

nn::EpochMetrics two_exits() {
  nn::EpochMetrics metrics;
  metrics.epoch = 1;
  metrics.train_seconds = 1.5;
  metrics.evaluation_seconds = 0.5;
  metrics.images_per_second = 1234.4;
  metrics.outputs = {{"features.0", 0.5, 0.8, 0.6, 0.75}, {"features.4", 0.25, 0.9, 0.3, 0.875}};
  return metrics;
}

TEST(Progress, NamesStagesAndDurations) {
  EXPECT_EQ(describe({"bp", 0, 0}), "bp");
  EXPECT_EQ(describe(kStage), "neuroflux block 2/3");
  EXPECT_EQ(format_duration(41.6), "42s");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(187), "3:07");
  EXPECT_EQ(format_duration(3723), "1:02:03");
}

TEST(Progress, ElsewhereALinePerEpoch) {
  const Sink sink;
  {
    Progress progress(sink.file(), false, true);
    progress.step(kStage, {.epoch = 1, .epochs = 6, .step = 1, .steps = 60});
    progress.epoch(kStage, two_exits());
  }
  EXPECT_EQ(sink.text(),
            "neuroflux block 2/3 epoch 1/6: features.0 loss 0.5000 val 75.00%, "
            "features.4 loss 0.2500 val 87.50%; 1234 images/s, 2.0 s\n");
}

TEST(Progress, WithoutValidationThereIsNoAccuracy) {
  const Sink sink;
  Progress(sink.file(), false, false).epoch({"bp", 0, 0}, two_exits());
  EXPECT_THAT(sink.text(), testing::Not(HasSubstr("val")));
}

TEST(Progress, OnATerminalOneLineIsRewritten) {
  const Sink sink;
  {
    Progress progress(sink.file(), true, true);
    const nn::StepProgress last{.epoch = 1,
                                .epochs = 2,
                                .step = 10,
                                .steps = 10,
                                .images_per_second = 100.0,
                                .seconds_left = 75.0};
    progress.step(kStage, last);
    progress.epoch(kStage, two_exits());
    progress.step(kStage, last);
  }
  const std::string text = sink.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 3) << text;
  EXPECT_THAT(text,
              HasSubstr("neuroflux block 2/3  epoch 1/2  100 images/s  1:15 left  step 10/10"));
  EXPECT_THAT(text, HasSubstr("val 87.5%  1:15 left"));
}

// Within the 80 columns that are written where a terminal does not tell.
TEST(Progress, TellsHowMuchTimeTheRunHasLeft) {
  for (const bool terminal : {true, false}) {
    TimeLeft left({{1, "neuroflux block 2/3", 1.0}, {1, "neuroflux block 3/3", 1.0, true}});
    const Sink sink;
    {
      Progress progress(sink.file(), terminal, true, &left);
      nn::StepProgress step{.epoch = 1,
                            .epochs = 2,
                            .step = 5,
                            .steps = 10,
                            .images_per_second = 100.0,
                            .seconds_left = 75.0};
      progress.step(kStage, step);
      progress.epoch(kStage, two_exits());
      step.step = 10;
      progress.step(kStage, step);
      if (!terminal) progress.epoch(kStage, two_exits());
    }
    EXPECT_THAT(sink.text(),
                testing::ContainsRegex(
                    terminal ? "neuroflux block 2/3  epoch 1/2  100 images/s  val 87\\.5%  "
                               "run: at most [0-9:]+s? left"
                             : "; 1234 images/s, 2\\.0 s; run: at most [0-9:]+s? left\n"));
  }
}

TEST(Progress, OnATerminalNamesWorkWithoutSteps) {
  const auto written = [](bool terminal) {
    const Sink sink;
    {
      Progress progress(sink.file(), terminal, true);
      progress.step(kStage, {.epoch = 1, .epochs = 1, .step = 1, .steps = 1});
      progress.epoch(kStage, two_exits());
      progress.phase(kStage, "filling cache");
      progress.phase({"neuroflux", 0, 0}, "testing");
    }
    return sink.text();
  };
  const std::string text = written(true);
  EXPECT_THAT(text, HasSubstr("\rneuroflux block 2/3  filling cache  val 87.5%\x1b[K\n"));
  EXPECT_THAT(text, HasSubstr("\rneuroflux  testing\x1b[K\n"));
  EXPECT_THAT(written(false),
              testing::Not(testing::AnyOf(HasSubstr("filling"), HasSubstr("testing"))));
}

}  // namespace
}  // namespace nf::tools
