// neuroflux train, compare and eval, from the outside, on data small enough for seconds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/tools/program.h"

namespace fs = std::filesystem;

namespace nf::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const Arguments kNet{"--model", "vgg11", "--width", "0.125", "--pad-to",  "0",
                     "--batch", "16",    "--lr",    "0.02",  "--threads", "1"};
const Arguments kTiny = kNet + Arguments{"--data", "images", "--epochs", "2"};

/// A workspace with a small data set in images/.
class Training : public testing::Test {
 protected:
  void SetUp() override { write_idx_folder(workspace_.path() / "images", 120, 40, 16, 4); }

  ProgramResult run(const Arguments& arguments) const { return workspace_.run(arguments); }
  fs::path file(const std::string& name) const { return workspace_.path() / name; }
  json read_json(const std::string& name) const { return json::parse(read_text(file(name))); }

  Workspace workspace_;
};

void expect_failure(const ProgramResult& result, int exit_code, const std::string& part) {
  EXPECT_EQ(result.exit_code, exit_code);
  const std::vector<std::string> lines = lines_of(result.err);
  ASSERT_FALSE(lines.empty());
  EXPECT_THAT(lines.back(), testing::StartsWith("neuroflux: "));
  EXPECT_THAT(lines.back(), HasSubstr(part));
}

/// The lines of metrics.jsonl without what the clock decides.
std::vector<json> metrics_without_times(const fs::path& path) {
  std::vector<json> metrics;
  for (const std::string& line : lines_of(read_text(path))) {
    metrics.push_back(json::parse(line));
    for (const char* key : {"train_seconds", "evaluation_seconds", "images_per_second"})
      metrics.back().erase(key);
  }
  return metrics;
}

TEST_F(Training, SameSeedGivesTheSameMetrics) {
  const Arguments command = Arguments{"train"} + kTiny;
  for (const char* folder : {"first", "second"}) {
    const ProgramResult result = run(command + Arguments{"--seed", "5", "--run-dir", folder});
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  ASSERT_EQ(run(command + Arguments{"--seed", "6", "--run-dir", "third"}).exit_code, 0);
  const auto first = metrics_without_times(file("first/metrics.jsonl"));
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, metrics_without_times(file("second/metrics.jsonl")));
  EXPECT_NE(first, metrics_without_times(file("third/metrics.jsonl")));
}

TEST_F(Training, CompareLeavesACompleteRunFolderThatEvalCanUse) {
  const ProgramResult result = run(Arguments{"compare", "--methods", "bp,neuroflux", "--budget",
                                             "16MiB", "--run-dir", "run", "--json"} +
                                   kTiny);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* name : {"config.toml", "plan.json", "metrics.jsonl", "summary.json",
                           "bp.safetensors", "neuroflux.safetensors"})
    EXPECT_TRUE(fs::is_regular_file(file("run") / name)) << name;
  EXPECT_FALSE(fs::exists(file("run/cache")));

  const json summary = read_json("run/summary.json");
  json printed = json::parse(result.out);
  EXPECT_EQ(printed.at("run_folder"), "run");
  printed.erase("run_folder");
  EXPECT_EQ(printed, summary);
  ASSERT_EQ(summary.at("methods").size(), 2U);
  for (const json& method : summary.at("methods")) {
    SCOPED_TRACE(method.at("name"));
    EXPECT_EQ(method.at("status"), "ok");
    EXPECT_LE(method.at("measured_peak_bytes"), 16 << 20);
    EXPECT_GT(method.at("train_seconds"), 0.0);
    EXPECT_GT(method.at("inference_images_per_second"), 0.0);
    const ProgramResult eval =
        run({"eval", "run/" + method.at("weights").get<std::string>(), "--data", "images", "--json",
             "--batch", "16", "--threads", "1"});
    ASSERT_EQ(eval.exit_code, 0) << eval.err;
    const json evaluation = json::parse(eval.out);
    EXPECT_EQ(evaluation.at("test_accuracy"), method.at("test_accuracy"));
    EXPECT_EQ(evaluation.at("parameters"), method.at("parameters"));
    EXPECT_EQ(evaluation.at("images"), 40);
  }
  const json& exits = summary.at("methods").at(1).at("exits");
  ASSERT_FALSE(exits.empty());
  for (const char* key : {"unit", "parameters", "validation_accuracy"})
    EXPECT_TRUE(exits.front().contains(key)) << key;
}

TEST_F(Training, TheConfigOfARunRepeatsIt) {
  ASSERT_EQ(run(Arguments{"train", "--run-dir", "first", "--seed", "3", "--no-early-stop"} + kTiny)
                .exit_code,
            0);
  const ProgramResult again = run({"train", "--config", "first/config.toml", "--run-dir", "again"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(metrics_without_times(file("first/metrics.jsonl")),
            metrics_without_times(file("again/metrics.jsonl")));
  EXPECT_EQ(read_text(file("first/config.toml")), read_text(file("again/config.toml")));
}

TEST_F(Training, WithoutANameEachRunGetsAFolderOfItsOwn) {
  const Arguments command =
      Arguments{"train", "--method", "bp", "--train-limit", "40", "--json"} + kTiny;
  const json first = json::parse(run(command).out);
  const json second = json::parse(run(command).out);
  EXPECT_NE(first.at("run_folder"), second.at("run_folder"));
  const std::string name = first.at("run_folder");
  EXPECT_THAT(name, testing::StartsWith("runs/train-vgg11-0-"));
  EXPECT_TRUE(fs::exists(file(name) / "summary.json"));
}

TEST_F(Training, ANamedFolderWithARunIsKeptUnlessTold) {
  const Arguments command =
      Arguments{"train", "--method", "bp", "--train-limit", "40", "--run-dir", "run"} + kTiny;
  ASSERT_EQ(run(command).exit_code, 0);
  const std::string before = read_text(file("run/summary.json"));
  expect_failure(run(command + Arguments{"--seed", "9"}), 1, "--overwrite");
  EXPECT_EQ(read_text(file("run/summary.json")), before);
  ASSERT_EQ(run(command + Arguments{"--seed", "9", "--overwrite"}).exit_code, 0);
  EXPECT_EQ(read_json("run/summary.json").at("seed"), 9);
}

TEST_F(Training, EndsWithTheTableAndWhatToTryNext) {
  const ProgramResult result = run(Arguments{"compare", "--run-dir", "run"} + kTiny);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"neuroflux", "run folder: run", "eval run/bp.safetensors",
                           "eval run/neuroflux.safetensors", "--trace run/memory.json"})
    EXPECT_THAT(result.out, HasSubstr(part));
  // Away from a terminal there is a line per epoch, and no control characters.
  EXPECT_THAT(result.err, HasSubstr("bp epoch 2/2"));
  EXPECT_THAT(result.err, HasSubstr("neuroflux block 1/"));
  EXPECT_EQ(result.err.find_first_of("\r\x1b"), std::string::npos);
}

TEST_F(Training, TraceOfARun) {
  const ProgramResult result =
      run(Arguments{"train", "--run-dir", "run", "--trace", "memory.json"} + kTiny);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_GT(read_json("memory.json").at("traceEvents").size(), 100U);
}

TEST_F(Training, TooSmallABudgetNamesTheLeast) {
  const ProgramResult train =
      run(Arguments{"train", "--budget", "4096", "--run-dir", "a", "--json"} + kTiny);
  expect_failure(train, 3, "neuroflux needs at least");
  const json method = json::parse(train.out).at("methods").at(0);
  const std::int64_t least = method.at("minimum_budget_bytes");
  EXPECT_THAT(train.err, HasSubstr("(" + std::to_string(least) + " bytes)"));
  expect_failure(run(Arguments{"compare", "--budget", "4096", "--run-dir", "b"} + kTiny), 3, "bp");
  const Arguments enough{"train", "--budget", std::to_string(least), "--run-dir", "c"};
  EXPECT_EQ(run(enough + kTiny + Arguments{"--train-limit", "20"}).exit_code, 0);
}

TEST_F(Training, MissingDataIsAFailure) {
  const Arguments command = Arguments{"train", "--data"};
  expect_failure(run(command + Arguments{"nowhere"}), 1, "nowhere");
  fs::remove(file("images/t10k-labels-idx1-ubyte"));
  expect_failure(run(command + Arguments{"images"}), 1, "t10k-labels");
  EXPECT_FALSE(fs::exists(file("runs")));
}

TEST_F(Training, TruncatedDataIsAFailure) {
  const fs::path images = file("images/train-images-idx3-ubyte");
  fs::resize_file(images, fs::file_size(images) - 1);
  expect_failure(run(Arguments{"train"} + kTiny), 1, "train-images-idx3-ubyte");
  EXPECT_FALSE(fs::exists(file("runs")));
}

TEST_F(Training, DamagedWeightsAreAFailure) {
  expect_failure(run({"eval", "none.safetensors", "--data", "images"}), 1, "none.safetensors");
  workspace_.write("junk.safetensors", "this is not a file of tensors");
  expect_failure(run({"eval", "junk.safetensors", "--data", "images"}), 1, "junk.safetensors");
}

TEST_F(Training, AnInterruptLeavesNoHalfWrittenFile) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string folder = "stopped-" + std::to_string(signal);
    const Arguments long_run = Arguments{"train", "--run-dir", folder} + kNet +
                               Arguments{"--data", "images", "--epochs", "100000"};
    const pid_t process = workspace_.start(long_run);
    const fs::path metrics = file(folder) / "metrics.jsonl";
    for (int wait = 0; wait < 6000; ++wait) {
      if (fs::exists(metrics) && fs::file_size(metrics) > 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_EQ(kill(process, signal), 0);
    const ProgramResult result = workspace_.finish(process);
    expect_failure(result, 130, "interrupted by");
    EXPECT_FALSE(metrics_without_times(metrics).empty());
    for (const auto& entry : fs::recursive_directory_iterator(file(folder)))
      EXPECT_THAT((std::vector<std::string>{"config.toml", "plan.json", "metrics.jsonl"}),
                  testing::Contains(entry.path().filename().string()));
  }
}

TEST_F(Training, GeneratedDataNeedsNoFiles) {
  const Arguments data{"--data",           "generated", "--generated-count",   "60",
                       "--generated-size", "12x12x2",   "--generated-classes", "3"};
  ASSERT_EQ(run(Arguments{"train", "--run-dir", "run", "--epochs", "1"} + kNet + data).exit_code,
            0);
  const json summary = read_json("run/summary.json");
  EXPECT_EQ(summary.at("train_images"), 54);
  EXPECT_EQ(summary.at("test_images"), 12);
  const ProgramResult eval =
      run({"eval", "run/neuroflux.safetensors", "--config", "run/config.toml", "--json"});
  ASSERT_EQ(eval.exit_code, 0) << eval.err;
  EXPECT_EQ(json::parse(eval.out).at("images"), 12);
}

}  // namespace
}  // namespace nf::test
