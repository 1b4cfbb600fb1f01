// What bench/profile tells of a step: parts that add up to the whole, calls that the net makes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tests/tools/program.h"

namespace nf::test {
namespace {

const Arguments kTiny{"--model", "vgg11",   "--width", "0.0625",    "--batch",
                      "2",       "--steps", "3",       "--threads", "1"};

nlohmann::json profile(const Arguments& arguments) {
  const Workspace folder;
  const ProgramResult result = folder.run(kTiny + arguments + Arguments{"--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return nlohmann::json::parse(result.out);
}

double sum(const nlohmann::json& rows, const char* field) {
  double total = 0;
  for (const nlohmann::json& row : rows) total += row[field].get<double>();
  return total;
}

std::map<std::string, std::int64_t> calls_by_operator(const nlohmann::json& report) {
  std::map<std::string, std::int64_t> calls;
  for (const nlohmann::json& row : report["operators"])
    calls[row["operator"].get<std::string>() + " " + row["pass"].get<std::string>()] =
        row["calls"].get<std::int64_t>();
  return calls;
}

void expect_shares_add_up(const nlohmann::json& report) {
  const nlohmann::json& outside = report["outside_operators"];
  EXPECT_GE(outside["seconds"].get<double>(), 0.0);
  EXPECT_NEAR(sum(report["operators"], "share") + outside["share"].get<double>(), 1.0, 1e-9);
  EXPECT_NEAR(sum(report["operators"], "seconds") + outside["seconds"].get<double>(),
              report["step_seconds"].get<double>(), 1e-9);
}

TEST(Profile, TellsAStepOfBackpropagationByOperatorAndUnit) {
  const nlohmann::json report = profile({});
  expect_shares_add_up(report);
  EXPECT_NEAR(sum(report["units"], "seconds"), sum(report["operators"], "seconds"), 1e-9);
  EXPECT_EQ(report["counted_steps"], 2);
  EXPECT_GT(report["ceilings"]["gflop_per_s"].get<double>(), 0.0);
  EXPECT_GT(report["ceilings"]["gb_per_s"].get<double>(), 0.0);

  const auto calls = calls_by_operator(report);
  // Eight convolutions with batch norms, the first of which hands no gradient on.
  EXPECT_EQ(calls.at("conv2d forward"), 8);
  EXPECT_EQ(calls.at("conv2d backward_weight"), 8);
  EXPECT_EQ(calls.at("conv2d backward_input"), 7);
  EXPECT_EQ(calls.at("batch_norm backward"), 8);
  EXPECT_EQ(calls.at("sgd update"), 1);

  std::vector<std::string> units;
  for (const nlohmann::json& row : report["units"]) units.push_back(row["unit"]);
  EXPECT_THAT(units, testing::ElementsAre("conv1", "conv2", "conv3", "conv4", "conv5", "conv6",
                                          "conv7", "conv8", "head", "vgg11"));
  for (const nlohmann::json& row : report["operators"])
    EXPECT_EQ(row.contains("gflop_per_s"),
              row["operator"] == "conv2d" || row["operator"] == "linear")
        << row;
}

TEST(Profile, TellsLocalStepsUnitByUnit) {
  const nlohmann::json report = profile({"--local", "--auxiliary", "adaptive"});
  expect_shares_add_up(report);
  const nlohmann::json& units = report["units"];
  ASSERT_EQ(units.size(), 8U);
  EXPECT_NEAR(sum(units, "share"), 1.0, 1e-9);
  EXPECT_NEAR(sum(units, "step_seconds"), report["step_seconds"].get<double>(), 1e-9);
  for (const nlohmann::json& row : units) {
    EXPECT_NEAR(row["unit_seconds"].get<double>() + row["classifier_seconds"].get<double>() +
                    row["update_seconds"].get<double>() + row["other_seconds"].get<double>(),
                row["step_seconds"].get<double>(), 1e-9);
    EXPECT_GT(row["classifier_seconds"].get<double>(), 0.0) << row;
    EXPECT_EQ(row.contains("auxiliary_width"), row["unit"] != "conv8") << row;
  }
  // No gradient leaves a unit: only the auxiliary networks' convolutions hand theirs on.
  const auto calls = calls_by_operator(report);
  EXPECT_EQ(calls.at("conv2d backward_weight"), 8 + 7);
  EXPECT_EQ(calls.at("conv2d backward_input"), 7);
  // At once behind each operator with parameters: convolution, batch norm, linear.
  EXPECT_EQ(calls.at("sgd update"), 7 * 5 + 3);
}

TEST(Profile, TakesRuleAndWidthOfAuxiliaryNetworks) {
  const nlohmann::json report =
      profile({"--local", "--auxiliary", "pooled", "--auxiliary-width", "24"});
  EXPECT_EQ(report["auxiliary"], "pooled");
  EXPECT_EQ(report["units"][0]["auxiliary_width"], 24);
  EXPECT_EQ(calls_by_operator(report).at("conv2d_depthwise forward"), 7);
}

TEST(Profile, PrintsTables) {
  const Workspace folder;
  for (const Arguments& mode : {Arguments{}, Arguments{"--local"}}) {
    const ProgramResult result = folder.run(kTiny + mode);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, testing::HasSubstr("outside operators"));
    EXPECT_THAT(result.out, testing::HasSubstr("\nconv8 "));
  }
}

TEST(Profile, RefusesWhatItCannotDo) {
  const Workspace folder;
  for (const Arguments& wrong :
       {Arguments{"--auxiliary", "pooled"}, Arguments{"--local", "--auxiliary", "wide"},
        Arguments{"--device", "meta"}, Arguments{"--model", "vgg12"}}) {
    const ProgramResult result = folder.run(wrong);
    EXPECT_EQ(result.exit_code, 2) << wrong.back();
    EXPECT_THAT(result.err, testing::StartsWith("profile: "));
  }
}

}  // namespace
}  // namespace nf::test
