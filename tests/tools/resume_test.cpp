// Runs that are killed at any moment and go on: nothing is lost but the epoch under way.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <random>
#include <stdexcept>

#include "tests/support/small_file_system.h"
#include "tests/tools/training.h"

namespace nf::test {
namespace {

using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// Several blocks, so that caches are filled and read.
const Arguments kSeveralBlocks{"--budget", "2MiB", "--partition", "homogeneous", "--rho", "0.1"};
const Arguments kThreeEpochs{"--data", "images", "--epochs", "3", "--no-early-stop", "--crop", "1"};
const Arguments kRun = kNet + kSeveralBlocks + kThreeEpochs;
constexpr int kKilled = 128 + SIGKILL;  // as an exit code

class Resumed : public Training {
 protected:
  void SetUp() override {
    Training::SetUp();
    const ProgramResult whole = run(Arguments{"compare", "--run-dir", "whole"} + kRun);
    ASSERT_EQ(whole.exit_code, 0) << whole.err;
    const json methods = read_json("whole/summary.json")["methods"];
    ASSERT_EQ(methods[0]["status"], "ok");
    ASSERT_GE(methods[1]["blocks"].size(), 3U);
  }

  Arguments begin() const { return Arguments{"compare", "--run-dir", "cut"} + run_ + more_; }
  Arguments go_on() const {
    // Before run.json is there, nothing has been done that could go on.
    return fs::exists(file("cut/run.json")) ? Arguments{"compare", "--resume", "cut"}
                                            : begin() + Arguments{"--overwrite"};
  }

  /// Goes on with the run and kills it when `now` says so; false: it was finished before.
  bool kill_when(const std::function<bool()>& now) const {
    const pid_t process = workspace_.start(go_on());
    if (workspace_.wait_until(process, now)) kill(process, SIGKILL);
    const ProgramResult ended = workspace_.finish(process);
    EXPECT_THAT(ended.exit_code, testing::AnyOf(0, kKilled)) << ended.err;
    return ended.exit_code == kKilled;
  }

  /// Goes on with the run; it stands still (SIGSTOP) where `now` holds. On a busy machine it may
  /// get past that unseen: it is then begun again.
  pid_t stopped_when(const std::function<bool()>& now) const {
    for (int tries = 0; tries < 50; ++tries) {
      const pid_t process = workspace_.start(go_on());
      if (workspace_.stop_when(process, now)) {
        if (now()) return process;
        kill(process, SIGKILL);
      }
      const ProgramResult ended = workspace_.finish(process);
      if (ended.exit_code != 0 && ended.exit_code != kKilled)
        throw std::runtime_error("the run that was to be stopped failed: " + ended.err);
      empty_cut();
    }
    throw std::runtime_error("the run got past where it was to be stopped each time");
  }

  /// The same, and it is killed there.
  void cut_when(const std::function<bool()>& now) const {
    const pid_t process = stopped_when(now);
    kill(process, SIGKILL);
    EXPECT_EQ(workspace_.finish(process).exit_code, kKilled);
  }

  /// All but the folder itself, which may be a mount.
  void empty_cut() const {
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator(file("cut"))) left.push_back(entry.path());
    for (const fs::path& path : left) fs::remove_all(path);
  }

  void finish() const {
    const ProgramResult rest = run(go_on());
    ASSERT_EQ(rest.exit_code, 0) << rest.err;
  }

  /// All that a run leaves is what the one left that was never killed.
  void expect_as_whole() const { expect_as("whole"); }
  void expect_as(const std::string& uncut) const {
    EXPECT_EQ(metrics_without_times(file("cut/metrics.jsonl")),
              metrics_without_times(file(uncut + "/metrics.jsonl")));
    const json cut = read_json("cut/summary.json")["methods"];
    const json whole = read_json(uncut + "/summary.json")["methods"];
    ASSERT_EQ(cut.size(), whole.size());
    for (const json& method : whole) {
      ASSERT_EQ(method["status"], "ok") << method["name"];
      const std::string weights = method["weights"];
      EXPECT_EQ(read_text(file("cut") / weights), read_text(file(uncut) / weights)) << weights;
      const fs::path exits =
          file(uncut) / (method["name"].get<std::string>() + "-exits.safetensors");
      if (fs::exists(exits)) {
        EXPECT_EQ(read_text(file("cut") / exits.filename()), read_text(exits)) << exits;
      }
    }
    for (std::size_t i = 0; i < cut.size(); ++i)
      for (const char* key :
           {"name", "status", "batches", "predicted_peak_bytes", "measured_peak_bytes",
            "validation_accuracy", "test_accuracy", "parameters", "weights"})
        EXPECT_EQ(cut[i][key], whole[i][key]) << key;
    std::vector<std::string> left, expected;
    for (const auto& entry : fs::recursive_directory_iterator(file("cut")))
      left.push_back(entry.path().filename().string());
    for (const auto& entry : fs::recursive_directory_iterator(file(uncut)))
      expected.push_back(entry.path().filename().string());
    EXPECT_THAT(left, testing::UnorderedElementsAreArray(expected));
  }

  /// What the dearest of the methods that keep all units on the device needs for one image.
  std::string least_of_whole_nets() const {
    const ProgramResult planned =
        run(Arguments{"plan", "--methods", "bp,bp-accumulate,bp-checkpoint", "--json"} +
            Arguments{"--data", "images", "--threads", "1"} + kShape);
    EXPECT_EQ(planned.exit_code, 0) << planned.err;
    const json document = json::parse(planned.out);
    std::int64_t budget = 0;
    for (const json& method : document.at("methods"))
      budget = std::max(budget, method.at("minimum_budget_bytes").get<std::int64_t>());
    return std::to_string(budget);
  }

  Arguments run_ = kRun;
  Arguments more_;  // that the run is begun with
};

TEST_F(Resumed, KilledFiftyTimesEndsAsIfItNeverWas) {
  struct Way {
    Arguments run;
    int kills;
    bool measured = false;  // what its plan rests on
  };
  const Arguments saving{"--methods", "bp-accumulate,bp-checkpoint", "--budget",
                         least_of_whole_nets()};
  const std::vector<Way> ways{
      {kRun, 26},
      {kNet + kThreeEpochs + saving, 6},
      {kNet + kThreeEpochs + Arguments{"--methods", "local", "--budget", "16MiB"}, 6},
      {kRun + Arguments{"--methods", "neuroflux", "--cache", "memory"}, 6},
      {kRun + Arguments{"--methods", "neuroflux", "--profile"}, 6, true}};
  std::mt19937 random(7);
  std::uniform_real_distribution<double> share(0.0, 0.7);
  for (const Way& way : ways) {
    SCOPED_TRACE(testing::PrintToString(way.run));
    run_ = way.run;
    const auto train_uncut = [&](const Arguments& more) {
      fs::remove_all(file("uncut"));
      const ProgramResult uncut = run(Arguments{"compare", "--run-dir", "uncut"} + run_ + more);
      ASSERT_EQ(uncut.exit_code, 0) << uncut.err;
    };
    const auto begin = Clock::now();
    train_uncut({});
    const std::chrono::duration<double> takes = Clock::now() - begin;
    for (int kills = 0; kills < way.kills && !HasFailure();) {
      const auto at = Clock::now() + share(random) * takes;
      if (kill_when([&] { return Clock::now() >= at; })) {
        ++kills;
        continue;
      }
      if (!way.measured) expect_as("uncut");
      fs::remove_all(file("cut"));
    }
    if (HasFailure()) return;
    finish();
    // Another measurement may make another plan.
    if (way.measured) train_uncut({"--plan", file("cut/plan.json").string()});
    expect_as("uncut");
    fs::remove_all(file("cut"));
  }
}

TEST_F(Resumed, KilledWhileACheckpointIsWritten) {
  const fs::path half = file("cut/checkpoint.safetensors.tmp");
  int caught = 0;
  for (int tries = 0; caught < 5 && tries < 100; ++tries) {
    if (!kill_when([&] { return fs::exists(half); })) fs::remove_all(file("cut"));
    caught += fs::exists(half) ? 1 : 0;
  }
  EXPECT_EQ(caught, 5);
  finish();
  expect_as_whole();
}

TEST_F(Resumed, KilledWhileACacheIsFilled) {
  const fs::path cache = file("cut/cache");
  int caught = 0;
  for (int tries = 0; caught < 5 && tries < 100; ++tries) {
    const std::string name = "train-after-block-" + std::to_string(1 + tries % 2);
    const auto filling = [&] {
      return fs::exists(cache / (name + ".data")) && !fs::exists(cache / (name + ".json"));
    };
    if (!kill_when(filling)) fs::remove_all(file("cut"));
    caught += filling() ? 1 : 0;
  }
  EXPECT_EQ(caught, 5);
  finish();
  expect_as_whole();
}

TEST_F(Resumed, AnInterruptSaysHowToGoOn) {
  const pid_t process =
      stopped_when([&] { return fs::exists(file("cut/checkpoint.safetensors")); });
  kill(process, SIGINT);
  kill(process, SIGCONT);
  const ProgramResult stopped = workspace_.finish(process);
  EXPECT_EQ(stopped.exit_code, 130);
  EXPECT_THAT(lines_of(stopped.err).back(), HasSubstr("to go on: neuroflux compare --resume cut"));
  finish();
  expect_as_whole();
}

TEST_F(Resumed, GoesOnWithTheUpdatesItWasBegunWith) {
  more_ = {"--update", "immediate"};
  ASSERT_EQ(run(Arguments{"compare", "--run-dir", "uncut"} + kRun + more_).exit_code, 0);
  cut_when([&] { return fs::exists(file("cut/checkpoint.safetensors")); });
  finish();
  const json bp = read_json("cut/summary.json")["methods"][0];
  const json together = read_json("whole/summary.json")["methods"][0];
  EXPECT_EQ(bp["update"], "immediate");
  EXPECT_EQ(together["update"], "together");
  EXPECT_EQ(bp["predicted_peak_bytes"], bp["measured_peak_bytes"]);
  EXPECT_LT(bp["measured_peak_bytes"], together["measured_peak_bytes"]);
  for (const char* weights : {"bp.safetensors", "neuroflux.safetensors"})
    EXPECT_EQ(read_text(file("cut") / weights), read_text(file("uncut") / weights)) << weights;
}

TEST_F(Resumed, GoesOnTowardsAnExitNearBackpropagation) {
  more_ = {"--exit-within-bp", "100", "--tolerance", "0"};
  ASSERT_EQ(run(Arguments{"compare", "--run-dir", "uncut"} + kRun + more_).exit_code, 0);
  cut_when([&] {
    return fs::exists(file("cut/bp.safetensors")) && fs::exists(file("cut/checkpoint.safetensors"));
  });
  finish();
  const json cut = read_json("cut/summary.json")["methods"][1];
  const json uncut = read_json("uncut/summary.json")["methods"][1];
  ASSERT_TRUE(uncut.contains("wanted_exit_accuracy"));
  EXPECT_EQ(cut["wanted_exit_accuracy"], uncut["wanted_exit_accuracy"]);
  EXPECT_EQ(cut["exit_unit"], uncut["exit_unit"]);
  EXPECT_EQ(read_text(file("cut/neuroflux.safetensors")),
            read_text(file("uncut/neuroflux.safetensors")));
}

// The folder may go while a run writes to it: the cache is then computed again by the next.
TEST_F(Resumed, ACacheThatIsRemovedIsComputedAgain) {
  const fs::path cache = file("cut/cache/train-after-block-1.json");
  cut_when([&] { return fs::exists(cache); });
  fs::remove_all(cache.parent_path());
  finish();
  expect_as_whole();
}

// What is open can still be read; what is opened next is not there.
TEST_F(Resumed, ACacheThatIsRemovedUnderARunIsNamedWhenItIsOpenedNextAndItGoesOn) {
  const std::size_t blocks = read_json("whole/summary.json")["methods"][1]["blocks"].size();
  const auto cached = [&](const char* name) { return fs::exists(file("cut/cache") / name); };
  // Finished by that block of neuroflux.
  const auto epochs_of = [&](std::size_t block) {
    if (!fs::exists(file("cut/metrics.jsonl"))) return std::ptrdiff_t{0};
    const std::vector<std::string> lines = lines_of(read_text(file("cut/metrics.jsonl")));
    const std::string key = "\"block\":" + std::to_string(block) + ",";
    return std::count_if(lines.begin(), lines.end(), [&](const std::string& line) {
      return line.find(key) != std::string::npos;
    });
  };
  struct Moment {
    const char* what;
    std::function<bool()> now;
    const char* missed;  // in the path that the error names; null: all that it needs is open
  };
  const std::vector<Moment> moments{
      {"block 2 trains, and will read its input once more to fill its own cache",
       [&] {
         return cached("train-after-block-1.json") && cached("validation-after-block-1.json") &&
                epochs_of(2) < 3;
       },
       "-after-block-1"},
      {"block 2 fills its cache",
       [&] {
         return cached("train-after-block-1.json") && cached("train-after-block-2.data") &&
                !cached("train-after-block-2.json");
       },
       "train-after-block-2"},
      {"the last block trains", [&] { return epochs_of(blocks) > 0; }, nullptr}};
  for (const Moment& moment : moments) {
    SCOPED_TRACE(moment.what);
    const pid_t process = stopped_when(moment.now);
    fs::remove_all(file("cut/cache"));
    kill(process, SIGCONT);
    const ProgramResult ended = workspace_.finish(process);
    EXPECT_EQ(ended.exit_code, moment.missed == nullptr ? 0 : 1) << ended.err;
    const std::vector<std::string> lines = lines_of(ended.err);
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(
        std::count_if(lines.begin(), lines.end(),
                      [](const std::string& line) { return line.starts_with("neuroflux: "); }),
        moment.missed == nullptr ? 0 : 1)
        << ended.err;
    if (moment.missed != nullptr) {
      EXPECT_THAT(lines.back(), testing::AllOf(testing::StartsWith("neuroflux: "),
                                               HasSubstr("cut/cache/"), HasSubstr(moment.missed)));
      finish();
    }
    expect_as_whole();
    fs::remove_all(file("cut"));
  }
}

// Whatever is written next fails: a cache, a checkpoint, metrics.
TEST_F(Resumed, ADiskThatFillsUpEndsItInOneLineAndItGoesOnOnceThereIsRoom) {
  const SmallFileSystem disk(file("cut"), 16 << 20);
  if (!disk.refusal().empty()) GTEST_SKIP() << "no mount: " << disk.refusal();
  for (const char* awaited : {"bp.safetensors", "cache/train-after-block-1.json"}) {
    SCOPED_TRACE(awaited);
    const pid_t process = stopped_when([&] {
      return fs::exists(file("cut") / awaited) && fs::exists(file("cut/checkpoint.safetensors"));
    });
    std::ofstream filler(file("cut/filler"), std::ios::binary);
    while (filler << std::string(4096, 'x') << std::flush) {
    }
    kill(process, SIGCONT);
    const ProgramResult stopped = workspace_.finish(process);
    EXPECT_EQ(stopped.exit_code, 1) << stopped.err;
    EXPECT_THAT(lines_of(stopped.err).back(), HasSubstr("neuroflux: "));
    fs::remove(file("cut/filler"));
  }
  finish();
  expect_as_whole();
}

TEST_F(Resumed, AFlippedBitInACacheIsComputedAgain) {
  const fs::path cache = file("cut/cache/train-after-block-1");
  cut_when([&] { return fs::exists(cache.string() + ".json"); });
  std::string bytes = read_text(cache.string() + ".data");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  workspace_.write("cut/cache/train-after-block-1.data", bytes);
  finish();
  expect_as_whole();
}

TEST_F(Resumed, OtherImagesOrADamagedCheckpointAreRefusedAndNamed) {
  const fs::path checkpoint = file("cut/checkpoint.safetensors");
  cut_when([&] { return fs::exists(checkpoint); });
  const std::string images = read_text(file("images/train-images-idx3-ubyte"));
  std::string others = images;
  others.back() = static_cast<char>(others.back() ^ 1);
  workspace_.write("images/train-images-idx3-ubyte", others);
  const ProgramResult swapped = run(go_on());
  EXPECT_EQ(swapped.exit_code, 1);
  EXPECT_EQ(lines_of(swapped.err).size(), 1U) << swapped.err;
  EXPECT_THAT(swapped.err, HasSubstr("checkpoint.safetensors: the run was begun with other images "
                                     "or labels than the data set has now"));
  workspace_.write("images/train-images-idx3-ubyte", images);
  std::string bytes = read_text(checkpoint);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 1);
  workspace_.write("cut/checkpoint.safetensors", bytes);
  const ProgramResult refused = run(go_on());
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("checkpoint.safetensors: is damaged"));
}

TEST_F(Resumed, ARunThatIsGoingOnIsLeftAlone) {
  const pid_t process =
      stopped_when([&] { return fs::exists(file("cut/checkpoint.safetensors")); });
  const Workspace other;
  for (const Arguments& second :
       {Arguments{"compare", "--resume", file("cut").string()},
        Arguments{"compare", "--run-dir", file("cut").string(), "--overwrite"} + kNet +
            Arguments{"--data", file("images").string()}}) {
    const ProgramResult refused = other.run(second);
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_EQ(lines_of(refused.err).size(), 1U) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("another run is going on in " + file("cut").string()));
  }
  kill(process, SIGCONT);
  EXPECT_EQ(workspace_.finish(process).exit_code, 0);
  expect_as_whole();
}

TEST_F(Resumed, OnlyWhatCanGoOn) {
  const auto refused = [&](const Arguments& arguments, int exit_code, const char* why) {
    const ProgramResult result = run(arguments);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_EQ(lines_of(result.err).size(), 1U);
    EXPECT_THAT(result.err, HasSubstr(why));
  };
  refused({"train", "--resume", "whole"}, 2, "was begun by compare: neuroflux compare --resume");
  refused({"compare", "--resume", "nowhere"}, 1, "nowhere holds no run that can go on");
  refused({"compare", "--resume", "whole", "--epochs", "9"}, 2, "not with --epochs");
  // A finished run is told again.
  const std::string weights = read_text(file("whole/bp.safetensors"));
  const ProgramResult again = run({"compare", "--resume", "whole", "--json"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(json::parse(again.out)["methods"], read_json("whole/summary.json")["methods"]);
  EXPECT_EQ(again.err, "");
}

TEST_F(Resumed, AComparisonOfSeveralRunsGoesOnWithThoseThatAreLeft) {
  more_ = {"--seeds", "0,1,2"};
  cut_when([&] { return fs::exists(file("cut/2097152-seed1/checkpoint.safetensors")); });
  const json first = read_json("cut/2097152-seed0/summary.json");
  finish();
  EXPECT_EQ(read_json("cut/2097152-seed0/summary.json"), first);
  EXPECT_EQ(read_json("cut/summary.json")["runs"].size(), 3U);
  EXPECT_EQ(read_text(file("cut/2097152-seed0/bp.safetensors")),
            read_text(file("whole/bp.safetensors")));
}

TEST_F(Resumed, CutOffWhileTheTablesAreWritten) {
  fs::copy(file("whole"), file("cut"));
  fs::remove(file("cut/summary.md"));
  fs::rename(file("cut/summary.csv"), file("cut/summary.csv.tmp"));
  finish();
  expect_as_whole();
}

TEST_F(Resumed, WithoutCheckpointsItBeginsAnew) {
  more_ = {"--no-checkpoints"};
  const fs::path metrics = file("cut/metrics.jsonl");
  cut_when([&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; });
  EXPECT_FALSE(fs::exists(file("cut/checkpoint.safetensors")));
  finish();
  expect_as_whole();
}

}  // namespace
}  // namespace nf::test
