// neuroflux plan, from the outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/tools/program.h"

namespace nf::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::int64_t kGranule = 64;  // bytes by which budgets can differ on the CPU

const Arguments kTinyPlan{"plan",    "--model",        "vgg11", "--width",       "0.125", "--input",
                          "16x16x1", "--train-images", "500",   "--test-images", "100",   "--batch",
                          "16"};

json plan(const Workspace& workspace, const Arguments& more, int exit_code = 0) {
  const ProgramResult result = workspace.run(kTinyPlan + Arguments{"--json"} + more);
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  return json::parse(result.out);
}

const json& method_of(const json& document, const std::string& name) {
  for (const json& method : document.at("methods"))
    if (method.at("name") == name) return method;
  throw std::runtime_error("no method " + name);
}

// The least budget that is told is one that does, and a byte less is none.
TEST(Plan, TheLeastBudgetOfJoinedUnitsIsTrue) {
  const Workspace workspace;
  for (const char* partition : {"optimal", "whole"}) {
    const Arguments joined{"--methods", "neuroflux", "--units", "3", "--partition", partition};
    const json plenty = plan(workspace, joined + Arguments{"--budget", "64MiB"});
    const std::int64_t least = method_of(plenty, "neuroflux").at("minimum_budget_bytes");
    const auto with = [&](std::int64_t budget, int exit_code) {
      return plan(workspace, joined + Arguments{"--budget", std::to_string(budget)}, exit_code);
    };
    const json least_of_all = with(least, 0), too_little = with(least - kGranule, 3);
    EXPECT_EQ(method_of(least_of_all, "neuroflux").at("status"), "ok") << partition;
    EXPECT_EQ(method_of(too_little, "neuroflux").at("minimum_budget_bytes"), least) << partition;
  }
}

TEST(Plan, JsonHoldsAllFields) {
  const json document = plan(Workspace(), {"--budget", "64MiB", "--units", "each"});
  EXPECT_EQ(document.at("budget_bytes"), 64 << 20);
  EXPECT_EQ(document.at("train_images"), 450);
  EXPECT_EQ(document.at("validation_images"), 50);
  EXPECT_EQ(document.at("test_images"), 100);
  for (const char* name : {"bp", "neuroflux"}) {
    const json& method = method_of(document, name);
    EXPECT_EQ(method.at("status"), "ok");
    EXPECT_GT(method.at("predicted_peak_bytes"), 0);
    EXPECT_LE(method.at("predicted_peak_bytes"), 64 << 20);
    EXPECT_GT(method.at("minimum_budget_bytes"), 0);
    EXPECT_GT(method.at("full_parameters"), 0);
    EXPECT_FALSE(method.at("batches").empty());
    for (const char* unknown :
         {"measured_peak_bytes", "train_seconds", "total_seconds", "validation_accuracy",
          "test_accuracy", "inference_images_per_second"})
      EXPECT_TRUE(method.at(unknown).is_null()) << unknown;
    EXPECT_TRUE(method.contains("parameters"));
  }
  const json& blocks = method_of(document, "neuroflux").at("blocks");
  ASSERT_FALSE(blocks.empty());
  EXPECT_EQ(blocks.front().at("first_unit"), 1);
  EXPECT_EQ(blocks.back().at("last_unit"), 8);
  for (const json& block : blocks)
    for (const char* key : {"batch", "predicted_peak_bytes", "measured_peak_bytes"})
      EXPECT_TRUE(block.contains(key)) << key;
  EXPECT_EQ(method_of(document, "neuroflux").at("units").size(), 8U);
}

TEST(Plan, TableIsForPeople) {
  const ProgramResult result = Workspace().run(kTinyPlan + Arguments{"--budget", "64MiB"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* word : {"block", "unit", "neuroflux", "bp", "MiB"})
    EXPECT_THAT(result.out, HasSubstr(word));
  EXPECT_EQ(result.err, "");
}

TEST(Plan, MinimumBudgetFitsAndOneGranuleLessDoesNot) {
  const Workspace workspace;
  for (const std::string name : {"bp", "bp-checkpoint", "neuroflux"}) {
    SCOPED_TRACE(name);
    const json ample = plan(workspace, {"--methods", name, "--budget", "64MiB"});
    const std::int64_t least = method_of(ample, name).at("minimum_budget_bytes");
    const json tight = plan(workspace, {"--methods", name, "--budget", std::to_string(least)});
    EXPECT_EQ(method_of(tight, name).at("status"), "ok");
    EXPECT_LE(method_of(tight, name).at("predicted_peak_bytes"), least);

    const ProgramResult result =
        workspace.run(kTinyPlan + Arguments{"--methods", name, "--json", "--budget",
                                            std::to_string(least - kGranule)});
    EXPECT_EQ(result.exit_code, 3);
    EXPECT_EQ(method_of(json::parse(result.out), name).at("status"), "does-not-fit");
    ASSERT_EQ(lines_of(result.err).size(), 1U);
    EXPECT_THAT(result.err, HasSubstr("(" + std::to_string(least) + " bytes)"));
  }
}

TEST(Plan, LeastBudgetsAreThoseOfTheUpdatesAskedFor) {
  const Workspace workspace;
  const auto least = [&](const Arguments& more, const char* method, const char* update) {
    const json document = plan(
        workspace,
        Arguments{"--budget", "64MiB", "--methods", "bp,bp-accumulate,bp-checkpoint,local"} + more);
    EXPECT_EQ(method_of(document, method).at("update"), update) << method;
    return method_of(document, method).at("minimum_budget_bytes").get<std::int64_t>();
  };
  const Arguments usual, together{"--update", "together"}, immediate{"--update", "immediate"};
  for (const char* method : {"bp", "bp-checkpoint"}) {
    EXPECT_EQ(least(usual, method, "together"), least(together, method, "together"));
    EXPECT_LT(least(immediate, method, "immediate"), least(together, method, "together"));
  }
  EXPECT_EQ(least(usual, "local", "immediate"), least(immediate, "local", "immediate"));
  EXPECT_LT(least(immediate, "local", "immediate"), least(together, "local", "together"));
  EXPECT_EQ(least(immediate, "bp-accumulate", "together"),
            least(together, "bp-accumulate", "together"));
  // Clipping takes all gradients.
  workspace.write("run.toml", "update = \"immediate\"\nclip-norm = 1.0\n");
  EXPECT_GE(least({"--config", "run.toml"}, "bp", "together"), least(together, "bp", "together"));
}

TEST(Plan, OneMethodThatFitsIsEnough) {
  const Workspace workspace;
  const json ample = plan(workspace, {"--budget", "64MiB"});
  std::int64_t least = method_of(ample, "bp").at("minimum_budget_bytes");
  std::int64_t other = method_of(ample, "neuroflux").at("minimum_budget_bytes");
  if (least > other) std::swap(least, other);
  ASSERT_LT(least, other);
  plan(workspace, {"--budget", std::to_string(least)}, 0);
  plan(workspace, {"--budget", std::to_string(least - kGranule)}, 3);
}

TEST(Plan, ConfigGivesWhatFlagsDoNot) {
  const Workspace workspace;
  workspace.write("run.toml",
                  "# a learning rate is of no use to a plan, but to others\n"
                  "lr = 0.1\nbudget = \"32MiB\"  # a comment\nseed = 7\nmethods = ['bp']\n");
  const json from_file = plan(workspace, {"--config", "run.toml"});
  EXPECT_EQ(from_file.at("budget_bytes"), 32 << 20);
  EXPECT_EQ(from_file.at("seed"), 7);
  EXPECT_EQ(from_file.at("methods").size(), 1U);
  const json overridden = plan(workspace, {"--config", "run.toml", "--budget", "48MiB"});
  EXPECT_EQ(overridden.at("budget_bytes"), 48 << 20);
  EXPECT_EQ(overridden.at("seed"), 7);
}

// A plan for many epochs weighs the cache less than one for few, so it must know how many.
TEST(Plan, IsForTheEpochsAsked) {
  const Workspace workspace;
  const auto seconds = [&](const Arguments& more) {
    const json document = plan(workspace, Arguments{"--methods", "bp", "--budget", "64MiB"} + more);
    return method_of(document, "bp").at("predicted_seconds").get<double>();
  };
  const double six = seconds({}), thirty = seconds({"--epochs", "30"});
  EXPECT_NEAR(thirty, 5.0 * six, 1e-9 * thirty);
  workspace.write("run.toml", "epochs = 30\n");
  EXPECT_EQ(seconds({"--config", "run.toml"}), thirty);
}

TEST(Plan, IsForTheEarlyStopAsked) {
  const Workspace workspace;
  json saved = plan(workspace, {"--budget", "2MiB", "--methods", "neuroflux", "--units", "each"});
  json blocks = json::array();
  for (int unit = 1; unit <= 8; ++unit)
    blocks.push_back({{"first_unit", unit}, {"last_unit", unit}, {"batch", 2}});
  saved["methods"][0]["blocks"] = blocks;
  std::ofstream(workspace.path() / "plan.json") << saved;
  const auto saved_by_stopping = [&](const Arguments& more) {
    const json document =
        plan(workspace,
             Arguments{"--budget", "2MiB", "--methods", "neuroflux", "--plan", "plan.json"} + more);
    const json& method = method_of(document, "neuroflux");
    return method.at("predicted_seconds").get<double>() -
           method.at("expected_seconds").get<double>();
  };
  const double usual = saved_by_stopping({});
  EXPECT_GT(usual, 0.0);
  EXPECT_GT(saved_by_stopping({"--patience", "1"}), usual);
  EXPECT_EQ(saved_by_stopping({"--no-early-stop"}), 0.0);
}

TEST(Plan, DescribedAndReadDataGiveTheSamePlan) {
  const Workspace workspace;
  write_idx_folder(workspace.path() / "images", 500, 100, 16, 10);
  json described = plan(workspace, {"--budget", "2MiB"});
  const ProgramResult result =
      workspace.run({"plan", "--model", "vgg11", "--width", "0.125", "--batch", "16", "--budget",
                     "2MiB", "--data", "images", "--pad-to", "0", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  json read = json::parse(result.out);
  for (json* document : {&described, &read})
    for (json& method : document->at("methods")) method.erase("plan_seconds");
  EXPECT_EQ(described, read);
}

TEST(Plan, SavedEditedAndGivenBack) {
  const Workspace workspace;
  json saved = plan(workspace, {"--budget", "2MiB", "--methods", "neuroflux", "--save", "plan.json",
                                "--units", "each", "--auxiliary", "adaptive"});
  json again =
      plan(workspace, {"--budget", "2MiB", "--methods", "neuroflux", "--plan", "plan.json"});
  const json& blocks = method_of(saved, "neuroflux").at("blocks");
  ASSERT_GT(blocks.size(), 1U);
  EXPECT_EQ(method_of(again, "neuroflux").at("partition"), "given");
  EXPECT_EQ(method_of(again, "neuroflux").at("blocks"), blocks);

  saved["methods"][0]["blocks"][1]["batch"] = 2;
  std::ofstream(workspace.path() / "plan.json") << saved;
  again = plan(workspace, {"--budget", "2MiB", "--methods", "neuroflux", "--plan", "plan.json"});
  EXPECT_EQ(again.at("methods")[0].at("batches")[1], 2);

  const ProgramResult refused = workspace.run(
      kTinyPlan + Arguments{"--budget", "512KiB", "--methods", "neuroflux", "--plan", "plan.json"});
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.err, HasSubstr("the budget is 524288 bytes"));
  const ProgramResult missing = workspace.run(kTinyPlan + Arguments{"--plan", "none.json"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("none.json: can't be read"));
}

TEST(Plan, GivenBackHasItsCachedViews) {
  const Workspace workspace;
  const Arguments tight{"--budget", "2MiB", "--methods", "neuroflux"};
  const Arguments given = tight + Arguments{"--plan", "plan.json"};
  const json saved = plan(
      workspace, tight + Arguments{"--units", "each", "--partition", "homogeneous", "--rho", "0"} +
                     Arguments{"--flip", "--cache-views", "2", "--save", "plan.json"});
  const json& cached = method_of(saved, "neuroflux");
  ASSERT_GT(cached.at("cache_bytes"), 0);
  const json again = plan(workspace, given + Arguments{"--flip"});
  EXPECT_EQ(method_of(again, "neuroflux").at("cache_views"), 2);
  EXPECT_EQ(method_of(again, "neuroflux").at("cache_bytes"), cached.at("cache_bytes"));
  const json more = plan(workspace, given + Arguments{"--flip", "--cache-views", "3"});
  EXPECT_EQ(method_of(more, "neuroflux").at("cache_views"), 3);
  const ProgramResult alike = workspace.run(kTinyPlan + given);
  EXPECT_EQ(alike.exit_code, 1);
  EXPECT_THAT(alike.err, HasSubstr("2 views of images that are not augmented"));
}

TEST(Plan, BudgetsGiveATable) {
  const Workspace workspace;
  const ProgramResult result = workspace.run(
      kTinyPlan + Arguments{"--budgets", "64KiB,2MiB,64M", "--methods", "bp,local,neuroflux"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1 + 3 * 3);
  EXPECT_THAT(result.out, HasSubstr("does not fit"));
  const ProgramResult none = workspace.run(kTinyPlan + Arguments{"--budgets", "64KiB,1KiB"});
  EXPECT_EQ(none.exit_code, 3);
  const ProgramResult wrong = workspace.run(kTinyPlan + Arguments{"--budgets", "2MiB,,4MiB"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("--budgets"));
}

TEST(Plan, ExplainsEachUnit) {
  const ProgramResult result = Workspace().run(
      kTinyPlan + Arguments{"--budget", "2MiB", "--methods", "neuroflux", "--explain"} +
      Arguments{"--units", "each", "--auxiliary", "adaptive"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (int unit = 1; unit <= 8; ++unit)
    EXPECT_THAT(result.out, HasSubstr(fmt::format("conv{}: width", unit)));
  EXPECT_THAT(result.out, HasSubstr("begins a block"));
}

TEST(Plan, ProfileMeasures) {
  const Workspace workspace;
  const json measured = plan(workspace, {"--budget", "4MiB", "--profile", "--cache-dir", "cache",
                                         "--cache-io", "threads", "--cache-buffered"});
  EXPECT_FALSE(std::filesystem::exists(workspace.path() / "cache"));
  EXPECT_EQ(method_of(measured, "neuroflux").at("time_source"), "measured");
  EXPECT_GT(method_of(measured, "neuroflux").at("predicted_seconds"), 0.0);
  EXPECT_GT(method_of(measured, "bp").at("predicted_seconds"), 0.0);
  const json predicted = plan(Workspace(), {"--budget", "4MiB", "--memory-model", "linear"});
  EXPECT_EQ(method_of(predicted, "neuroflux").at("time_source"), "predicted");
}

TEST(Plan, TheLineGoesThroughThePointsAskedFor) {
  const Workspace workspace;
  const auto peaks = [&](const char* points, const char* key) {
    const json document =
        plan(workspace, Arguments{"--budget", "64MiB", "--methods", "neuroflux", "--no-onednn"} +
                            Arguments{"--memory-model", "linear", "--linear-points", points});
    std::vector<std::int64_t> all;
    for (const json& block : method_of(document, "neuroflux").at("blocks"))
      all.push_back(block.at(key).get<std::int64_t>());
    return all;
  };
  // Two points are met, at the batch wanted too; of more none is.
  EXPECT_EQ(peaks("2", "linear_peak_bytes"), peaks("2", "predicted_peak_bytes"));
  EXPECT_NE(peaks("5", "linear_peak_bytes"), peaks("5", "predicted_peak_bytes"));
}

TEST(Plan, TraceAsCsv) {
  const Workspace workspace;
  const ProgramResult result =
      workspace.run(kTinyPlan + Arguments{"--budget", "64MiB", "--trace", "memory.csv"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<std::string> lines = lines_of(read_text(workspace.path() / "memory.csv"));
  ASSERT_GT(lines.size(), 100U);
  EXPECT_THAT(lines[0], testing::StartsWith("time_ns,action,address,asked,granted,live,reserved,"
                                            "category,op,unit,phase"));
  const auto commas = [](const std::string& line) {
    return std::count(line.begin(), line.end(), ',');
  };
  for (const std::string& line : lines) EXPECT_EQ(commas(line), commas(lines[0])) << line;
}

TEST(Plan, TraceAsChromeJson) {
  const Workspace workspace;
  const ProgramResult result =
      workspace.run(kTinyPlan + Arguments{"--budget", "64MiB", "--trace", "memory.json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json trace = json::parse(read_text(workspace.path() / "memory.json"));
  EXPECT_GT(trace.at("traceEvents").size(), 100U);
}

}  // namespace
}  // namespace nf::test
