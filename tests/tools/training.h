// Runs of the program that train, on data small enough for seconds.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/program.h"

namespace nf::test {

namespace fs = std::filesystem;
using nlohmann::json;

// Predicted times: what is planned is then the same in every run.
inline const Arguments kJoined{"--model", "vgg11",   "--width", "0.125",       "--pad-to",
                               "0",       "--batch", "16",      "--no-profile"};
// More exits and blocks than three joined units have.
inline const Arguments kShape = kJoined + Arguments{"--units", "each", "--auxiliary", "adaptive"};
inline const Arguments kThrifty{"--lr", "0.02", "--threads", "1"};
inline const Arguments kImages{"--data", "images", "--epochs", "2"};
inline const Arguments kNet = kShape + kThrifty + Arguments{"--patience", "1"};
inline const Arguments kTiny = kNet + kImages;
inline const Arguments kTinyJoined = kJoined + kThrifty + kImages;

/// A workspace with a small data set of four classes in images/.
class Training : public testing::Test {
 protected:
  void SetUp() override { write_idx_folder(workspace_.path() / "images", 120, 40, 16, 4); }

  ProgramResult run(const Arguments& arguments) const { return workspace_.run(arguments); }
  fs::path file(const std::string& name) const { return workspace_.path() / name; }
  json read_json(const std::string& name) const { return json::parse(read_text(file(name))); }

  /// One line of error, the last one; before it nothing but the progress of epochs.
  void expect_failure(const ProgramResult& result, int exit_code, const std::string& part) const {
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    const std::vector<std::string> lines = lines_of(result.err);
    ASSERT_FALSE(lines.empty());
    EXPECT_THAT(lines.back(), testing::StartsWith("neuroflux: "));
    EXPECT_THAT(lines.back(), testing::HasSubstr(part));
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
      EXPECT_THAT(lines[i], testing::Not(testing::StartsWith("neuroflux: ")));
      EXPECT_THAT(lines[i], testing::HasSubstr(" epoch "));
    }
    expect_whole_files();
  }

  /// The same where nothing has been trained: the one line is all.
  void expect_refusal(const ProgramResult& result, int exit_code, const std::string& part) const {
    expect_failure(result, exit_code, part);
    EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  }

  /// Whatever happened, no file is half written and no cache is left.
  void expect_whole_files() const {
    for (const auto& entry : fs::recursive_directory_iterator(workspace_.path())) {
      const fs::path& path = entry.path();
      const std::string name = path.filename().string();
      EXPECT_THAT(name, testing::Not(testing::HasSubstr(".tmp"))) << path;
      EXPECT_THAT(name, testing::Not(testing::HasSubstr("-after-block-"))) << path;
      if (path.extension() == ".json") {
        EXPECT_TRUE(json::accept(read_text(path))) << path;
      }
      if (path.extension() == ".jsonl") {
        for (const std::string& line : lines_of(read_text(path)))
          EXPECT_TRUE(json::accept(line)) << path << ": " << line;
      }
    }
  }

  Workspace workspace_;
};

/// The lines of metrics.jsonl without what the clock decides.
inline std::vector<json> metrics_without_times(const fs::path& path) {
  std::vector<json> metrics;
  for (const std::string& line : lines_of(read_text(path))) {
    metrics.push_back(json::parse(line));
    for (const char* key :
         {"elapsed_seconds", "train_seconds", "evaluation_seconds", "images_per_second"})
      metrics.back().erase(key);
  }
  return metrics;
}

}  // namespace nf::test
