// What goes wrong in a run: one line that says what and where, an exit code, and nothing half
// written.
#include <csignal>
#include <fstream>
#include <functional>

#include "tests/tools/training.h"

namespace nf::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class FailedRun : public Training {
 protected:
  void put_byte(const std::string& name, std::int64_t offset, int byte) const {
    std::fstream out(file(name), std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(offset);
    out.put(static_cast<char>(byte));
    ASSERT_TRUE(out.flush()) << name;
  }
  void append(const std::string& name, char byte) const {
    std::ofstream(file(name), std::ios::app | std::ios::binary).put(byte);
  }
  void cut_to(const std::string& name, std::uintmax_t bytes) const {
    fs::resize_file(file(name), bytes);
  }

  /// Little more than the least budget of neuroflux, in which units differ and blocks are several.
  std::string tight_budget() const {
    const ProgramResult refused =
        run(Arguments{"train", "--budget", "4096", "--run-dir", "probe", "--json"} + kTiny);
    const std::int64_t least =
        json::parse(refused.out).at("methods").at(0).at("minimum_budget_bytes");
    return std::to_string(least + least / 8);
  }

  /// The run folder holds what had been finished, and no cache.
  void expect_only_finished(const std::string& folder) const {
    const std::vector<std::string> finished{
        "config.toml", "plan.json", "metrics.jsonl", "summary.json",          "summary.csv",
        "summary.md",  "run.json",  "times.json",    "checkpoint.safetensors"};
    for (const auto& entry : fs::recursive_directory_iterator(file(folder)))
      EXPECT_THAT(finished, testing::Contains(entry.path().filename().string()));
  }
};

TEST_F(FailedRun, MissingData) {
  const Arguments command = Arguments{"train", "--data"};
  expect_refusal(run(command + Arguments{"nowhere"}), 1, "nowhere");
  fs::remove(file("images/t10k-labels-idx1-ubyte"));
  expect_refusal(run(command + Arguments{"images"}), 1, "t10k-labels");
  EXPECT_FALSE(fs::exists(file("runs")));
}

TEST_F(FailedRun, DamagedDataIsNamedByFileAndByte) {
  const std::string images = "images/train-images-idx3-ubyte";
  const std::string labels = "images/train-labels-idx1-ubyte";
  const std::string test_labels = "images/t10k-labels-idx1-ubyte";
  const std::uintmax_t image_bytes = 16 + 120 * 16 * 16, label_bytes = 8 + 120;
  struct Damage {
    const char* name;
    std::string file;
    std::function<void()> apply;
    std::string where;
  };
  const std::vector<Damage> damages{
      {"no IDX file", images, [&] { put_byte(images, 0, 0x1f); }, "byte 0"},
      {"wrong magic", images, [&] { put_byte(images, 1, 1); }, "byte 0"},
      {"wrong type", labels, [&] { put_byte(labels, 2, 0x0d); }, "byte 2"},
      {"wrong rank", images, [&] { put_byte(images, 3, 200); }, "byte 3"},
      {"no header", images, [&] { cut_to(images, 10); }, "byte 10"},
      {"empty", labels, [&] { cut_to(labels, 0); }, "byte 0"},
      {"truncated", images, [&] { cut_to(images, image_bytes - 1); },
       "byte " + std::to_string(image_bytes - 1)},
      {"no pixels", images, [&] { cut_to(images, 16); }, "byte 16"},
      {"oversized", images, [&] { append(images, 'x'); }, "byte " + std::to_string(image_bytes)},
      {"oversized labels", labels, [&] { append(labels, '\0'); },
       "byte " + std::to_string(label_bytes)},
      {"a label out of range", labels, [&] { put_byte(labels, 8 + 7, 200); }, "byte 15"},
      {"a test label out of range", test_labels, [&] { put_byte(test_labels, 8 + 5, 9); },
       "byte 13"},
      {"a huge count", images, [&] { put_byte(images, 4, 0x7f); },
       "byte " + std::to_string(image_bytes)},
      {"fewer labels than images", test_labels,
       [&] {
         put_byte(test_labels, 7, 39);
         cut_to(test_labels, 8 + 39);
       },
       "byte 4"}};
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.name);
    write_idx_folder(file("images"), 120, 40, 16, 4);
    damage.apply();
    const ProgramResult result = run(Arguments{"train", "--run-dir", "run"} + kTiny);
    expect_refusal(result, 1, damage.file);
    EXPECT_THAT(result.err, HasSubstr(damage.where));
    EXPECT_EQ(result.out, "");
    EXPECT_FALSE(fs::exists(file("run")));
  }
}

TEST_F(FailedRun, LabelsThatTheNetDoesNotKnow) {
  const Arguments command{"train", "--method", "bp", "--train-limit", "40", "--run-dir", "run"};
  ASSERT_EQ(run(command + kTiny).exit_code, 0);
  put_byte("images/t10k-labels-idx1-ubyte", 8 + 5, 9);
  const ProgramResult result =
      run({"eval", "run/bp.safetensors", "--data", "images", "--threads", "1"});
  expect_refusal(result, 1, "run/bp.safetensors");
  EXPECT_THAT(result.err, AllOf(HasSubstr("4 classes"), HasSubstr("label 9")));
}

TEST_F(FailedRun, DamagedWeights) {
  expect_refusal(run({"eval", "none.safetensors", "--data", "images"}), 1, "none.safetensors");
  workspace_.write("junk.safetensors", "this is not a file of tensors");
  expect_refusal(run({"eval", "junk.safetensors", "--data", "images"}), 1, "junk.safetensors");
}

TEST_F(FailedRun, ALossThatIsNotFiniteSaysWhere) {
  struct Method {
    std::string name, stage, loss;
  };
  for (const Method& method : {Method{"bp", "bp", "the loss of vgg11 is"},
                               Method{"neuroflux", "neuroflux block 1/", "the loss of conv1 is"}}) {
    SCOPED_TRACE(method.name);
    const ProgramResult result =
        run(Arguments{"train", "--method", method.name, "--run-dir", method.name, "--lr", "1e30",
                      "--warmup", "0", "--threads", "1", "--epochs", "2", "--data", "images"} +
            kShape);
    expect_refusal(result, 1, method.stage);
    EXPECT_THAT(result.err, AllOf(HasSubstr("epoch 1 step "), HasSubstr(method.loss),
                                  HasSubstr("learning rate")));
    expect_only_finished(method.name);
  }
}

TEST_F(FailedRun, WhatDivergesIsToldAndTheComparisonGoesOnAndIsNotTrainedAgain) {
  const ProgramResult result =
      run(Arguments{"compare", "--methods", "bp,neuroflux", "--seeds", "0,1", "--budget", "16MiB",
                    "--run-dir", "run", "--lr", "1e30", "--warmup", "0", "--threads", "1"} +
          Arguments{"--epochs", "2", "--data", "images"} + kShape);
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_THAT(lines_of(result.err).back(),
              HasSubstr("neuroflux: 4 trainings diverged; the first: bp, epoch 1 step "));
  const json summary = read_json("run/summary.json");
  ASSERT_EQ(summary.at("runs").size(), 2U);
  for (const json& one : summary.at("runs"))
    for (const json& method : one.at("methods")) {
      EXPECT_EQ(method.at("status"), "diverged");
      EXPECT_THAT(method.at("error").get<std::string>(), HasSubstr("the loss of "));
      EXPECT_TRUE(method.at("weights").is_null());
      EXPECT_TRUE(method.at("test_accuracy").is_null());
    }
  for (const json& method : summary.at("methods")) EXPECT_EQ(method.at("diverged"), 2);
  EXPECT_THAT(read_text(file("run/summary.csv")),
              AllOf(HasSubstr(",bp,diverged,"), HasSubstr(",neuroflux,diverged,")));
  EXPECT_THAT(read_text(file("run/summary.md")), HasSubstr("| bp | 2, 2 diverged |"));
  EXPECT_EQ(result.out.find(read_text(file("run/summary.md"))), 0U);
  for (const char* folder : {"run/16777216-seed0", "run/16777216-seed1"})
    expect_only_finished(folder);
  // Nothing is told but what there is: no epoch, no run that begins.
  expect_refusal(run({"compare", "--resume", "run"}), 1, "4 trainings diverged");
  EXPECT_EQ(read_json("run/summary.json"), summary);
  ASSERT_EQ(run({"report", "run"}).exit_code, 0);
  EXPECT_THAT(read_text(file("report.html")), HasSubstr("Seed 1: neuroflux diverged: neuroflux "));
}

// Found one step before the loss is not finite either.
TEST_F(FailedRun, AGradientThatIsNotFiniteNamesItsParameter) {
  for (const std::string method : {"bp", "neuroflux"}) {
    SCOPED_TRACE(method);
    const Arguments command =
        Arguments{"train", "--method", method, "--run-dir", method, "--lr", "1e18", "--warmup"} +
        Arguments{"0", "--threads", "1", "--data", "images", "--epochs", "2"} + kShape;
    const ProgramResult checked = run(command + Arguments{"--check-finite"});
    expect_refusal(checked, 1, "epoch 1 step 2 ");
    EXPECT_THAT(checked.err, HasSubstr("optimizer: the gradient of features.0.weight [8,3,3,1] is "
                                       "not finite in step 2"));
    expect_only_finished(method);
    expect_refusal(run(command + Arguments{"--overwrite"}), 1, "epoch 1 step 3 ");
  }
}

// What can't be written to is found before anything is trained.
TEST_F(FailedRun, AFileInTheCachesPlace) {
  workspace_.write("blocked", "somebody's notes");
  const Arguments command =
      Arguments{"compare", "--cache-dir", "blocked", "--budget", tight_budget(), "--run-dir"} +
      Arguments{"run"} + kTiny;
  expect_refusal(run(command), 1, "blocked");
  EXPECT_EQ(read_text(file("blocked")), "somebody's notes");
  EXPECT_FALSE(fs::exists(file("run/metrics.jsonl")));
}

TEST_F(FailedRun, AFileInTheRunFoldersPlace) {
  workspace_.write("blocked", "somebody's notes");
  for (const char* folder : {"blocked", "blocked/run"})
    expect_refusal(run(Arguments{"train", "--run-dir", folder} + kTiny), 1, "blocked");
  EXPECT_EQ(read_text(file("blocked")), "somebody's notes");
}

TEST_F(FailedRun, AnInterruptLeavesNoHalfWrittenFile) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string folder = "stopped-" + std::to_string(signal);
    const Arguments long_run = Arguments{"train", "--run-dir", folder} + kNet +
                               Arguments{"--data", "images", "--epochs", "100000"};
    const pid_t process = workspace_.start(long_run);
    const fs::path metrics = file(folder) / "metrics.jsonl";
    EXPECT_TRUE(workspace_.wait_until(
        process, [&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; }));
    ASSERT_EQ(kill(process, signal), 0);
    expect_failure(workspace_.finish(process), 130, "interrupted by");
    EXPECT_FALSE(metrics_without_times(metrics).empty());
    expect_only_finished(folder);
  }
}

TEST_F(FailedRun, AnInterruptInALaterBlockRemovesTheCache) {
  const Arguments command =
      Arguments{"train", "--run-dir",     "run", "--budget", tight_budget(), "--epochs",
                "40",    "--train-limit", "40",  "--data",   "images",       "--no-early-stop"};
  const pid_t process = workspace_.start(command + kNet);
  const fs::path metrics = file("run/metrics.jsonl");
  EXPECT_TRUE(workspace_.wait_until(process, [&] {
    return fs::exists(metrics) && read_text(metrics).find("\"block\":2") != std::string::npos;
  }));
  EXPECT_TRUE(fs::exists(file("run/cache"))) << "there is nothing to remove";
  ASSERT_EQ(kill(process, SIGINT), 0);
  expect_failure(workspace_.finish(process), 130, "block 2/");
  EXPECT_FALSE(fs::exists(file("run/cache")));
  expect_only_finished("run");
}

}  // namespace
}  // namespace nf::test
