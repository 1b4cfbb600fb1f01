// Which units learn from one loss, and which exit is delivered, from the outside.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "tests/tools/training.h"

namespace nf::test {
namespace {

// Plan, training, the saved exit and the plan of the run speak of the same larger units, three
// where nothing else is asked for.
TEST_F(Training, JoinedUnitsLearnFromOneLoss) {
  const Arguments joined{"--auxiliary", "deep", "--no-early-stop"};
  const ProgramResult trained =
      run(Arguments{"train", "--run-dir", "run", "--tolerance", "1"} + joined + kTinyJoined);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const json method = read_json("run/summary.json").at("methods")[0];
  ASSERT_EQ(method.at("exits").size(), 3U);
  EXPECT_EQ(method.at("exit_unit"), 1);
  EXPECT_LT(method.at("parameters"), method.at("full_parameters"));
  EXPECT_EQ(method.at("predicted_peak_bytes"), method.at("measured_peak_bytes"));
  const json planned = read_json("run/plan.json").at("methods")[0];
  std::int64_t units = 0;
  for (const json& unit : planned.at("units")) units += unit.at("joined_units").get<std::int64_t>();
  EXPECT_EQ(units, 8);
  const ProgramResult tested =
      run({"eval", "run/neuroflux.safetensors", "--data", "images", "--threads", "1", "--json"});
  ASSERT_EQ(tested.exit_code, 0) << tested.err;
  EXPECT_EQ(json::parse(tested.out).at("test_accuracy"), method.at("test_accuracy"));
  // Given as a file, the plan needs no --units.
  ASSERT_EQ(run(Arguments{"train", "--plan", "run/plan.json", "--run-dir", "again",
                          "--no-early-stop", "--tolerance", "1"} +
                kTinyJoined)
                .exit_code,
            0);
  EXPECT_EQ(metrics_without_times(file("again/metrics.jsonl")),
            metrics_without_times(file("run/metrics.jsonl")));
  ASSERT_EQ(run({"report", "run", "--out", "page.html"}).exit_code, 0);
  expect_refusal(run(Arguments{"train", "--units", "some"} + kTinyJoined), 2,
                 "units: must be each, stage, a whole number from 1 on or several with commas, got "
                 "\"some\"");
}

TEST_F(Training, ListedUnitsAreJoinedAsListed) {
  const ProgramResult planned =
      run({"plan", "--model", "vgg11", "--width", "0.125", "--units", "1,4,3", "--json"});
  ASSERT_EQ(planned.exit_code, 0) << planned.err;
  std::vector<std::int64_t> sizes;
  const json methods = json::parse(planned.out).at("methods");
  for (const json& unit : methods.back().at("units"))
    sizes.push_back(unit.at("joined_units").get<std::int64_t>());
  EXPECT_THAT(sizes, testing::ElementsAre(1, 4, 3));
  expect_refusal(run({"plan", "--model", "vgg11", "--units", "1,4"}), 2,
                 "units: 3 of vgg11's 8 units are in no larger one");
}

TEST_F(Training, DeliversTheSmallestExitOfAWantedAccuracy) {
  const auto delivered = [&](const char* folder, const char* accuracy) {
    const Arguments command{"train", "--run-dir",       folder,  "--no-early-stop", "--tolerance",
                            "0",     "--exit-accuracy", accuracy};
    const Arguments work{
        "--data",   "generated", "--train-limit", "300", "--validation-fraction", "0.3",
        "--epochs", "2",         "--seed",        "1"};
    const Arguments means{"--width", "0.125", "--budget",  "8MiB",
                          "--batch", "32",    "--threads", "1"};
    const ProgramResult trained = run(command + work + means);
    EXPECT_EQ(trained.exit_code, 0) << trained.err;
    return read_json(std::string(folder) + "/summary.json").at("methods")[0];
  };
  const json best = delivered("best", "0");
  std::vector<double> accuracies;
  for (const json& exit : best.at("exits")) accuracies.push_back(exit.at("validation_accuracy"));
  ASSERT_GT(accuracies.back(), accuracies.front());
  EXPECT_EQ(best.at("exit_unit"), std::ssize(accuracies));
  const std::string enough = fmt::format("{}", accuracies.front());
  EXPECT_EQ(delivered("enough", enough.c_str()).at("exit_unit"), 1);
  // An accuracy that no exit has counts as none.
  EXPECT_EQ(delivered("none", "1").at("exit_unit"), best.at("exit_unit"));
  expect_refusal(run(Arguments{"train", "--exit-accuracy", "91"} + kTinyJoined), 2,
                 "--exit-accuracy");
}

// In one block, whose whole net is delivered where nothing else is asked for.
TEST_F(Training, DeliversTheSmallestExitNearBackpropagation) {
  const auto methods_of = [&](const std::string& folder, const Arguments& more) {
    const ProgramResult trained =
        run(Arguments{"compare", "--run-dir", folder, "--partition", "whole"} + kTiny + more);
    EXPECT_EQ(trained.exit_code, 0) << trained.err;
    return read_json(folder + "/summary.json").at("methods");
  };
  const json plain = methods_of("plain", {});
  ASSERT_EQ(plain[1].at("exit_unit"), 8);
  EXPECT_FALSE(plain[1].contains("wanted_exit_accuracy"));
  const double bp = plain[0].at("validation_accuracy").get<double>();
  for (const double points : {0.0, 10.0, 100.0}) {
    SCOPED_TRACE(points);
    const double enough = std::max(bp - points / 100.0 - 1e-8, 1e-8);
    std::int64_t expected = 8, fewest = std::numeric_limits<std::int64_t>::max();
    for (const json& exit : plain[1].at("exits")) {
      const auto parameters = exit.at("parameters").get<std::int64_t>();
      if (exit.at("validation_accuracy").get<double>() < enough || parameters >= fewest) continue;
      fewest = parameters;
      expected = exit.at("unit").get<std::int64_t>();
    }
    const std::string text = fmt::format("{}", points);
    const json near = methods_of("near" + text, {"--exit-within-bp", text});
    EXPECT_EQ(near[1].at("exit_unit"), expected);
    if (points == 100.0) {
      EXPECT_NE(expected, 8);
    }
    EXPECT_NEAR(near[1].at("wanted_exit_accuracy").get<double>(),
                std::max(bp - points / 100.0, 0.0), 1e-8);
    EXPECT_EQ(metrics_without_times(file("near" + text + "/metrics.jsonl")),
              metrics_without_times(file("plain/metrics.jsonl")));
  }
}

TEST_F(Training, AnExitNearABackpropagationThatDoesNotFitIsChosenWithout) {
  const ProgramResult planned =
      run(Arguments{"plan", "--data", "images", "--threads", "1", "--json"} + kShape);
  ASSERT_EQ(planned.exit_code, 0) << planned.err;
  const json plan = json::parse(planned.out);
  const auto least = plan.at("methods")[0].at("minimum_budget_bytes").get<std::int64_t>();
  ASSERT_LT(plan.at("methods")[1].at("minimum_budget_bytes").get<std::int64_t>(), least - 1);
  const ProgramResult trained = run(Arguments{"compare", "--run-dir", "run", "--budget",
                                              std::to_string(least - 1), "--exit-within-bp", "1"} +
                                    kTiny);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.err, testing::HasSubstr("bp has no accuracy, so the exit is chosen without"));
  const json method = read_json("run/summary.json").at("methods")[1];
  EXPECT_EQ(method.at("status"), "ok");
  EXPECT_FALSE(method.contains("wanted_exit_accuracy"));
}

TEST_F(Training, AFinishedRunGivesItsOtherExitsToo) {
  const ProgramResult trained =
      run(Arguments{"compare", "--run-dir", "run", "--no-early-stop", "--tolerance", "1"} + kTiny);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  json summary = read_json("run/summary.json");
  const json method = summary.at("methods")[1];
  const json exits = method.at("exits");
  ASSERT_EQ(exits.size(), 8U);
  ASSERT_NE(method.at("exit_unit"), exits.back().at("unit"));
  const auto exported = [&](const Arguments& which) {
    const ProgramResult result = run(Arguments{"export", "run", "--json"} + which);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  };
  const auto expect_exit = [&](const json& told, const json& exit) {
    EXPECT_EQ(told.at("exit_unit"), exit.at("unit"));
    for (const char* key : {"parameters", "flops", "validation_accuracy"})
      EXPECT_EQ(told.at(key), exit.at(key)) << key;
  };
  // The delivered exit comes out as it was delivered.
  const json same = exported({"--exit", fmt::format("{}", method.at("exit_unit").get<int>()),
                              "--out", "same.safetensors"});
  EXPECT_EQ(same.at("test_accuracy"), method.at("test_accuracy"));
  EXPECT_EQ(read_text(file("same.safetensors")), read_text(file("run/neuroflux.safetensors")));

  const json last = exported({"--exit", "8"});
  expect_exit(last, exits.back());
  EXPECT_EQ(last.at("test_accuracy"), nullptr);
  const ProgramResult tested =
      run({"eval", "exit.safetensors", "--data", "images", "--threads", "1", "--json"});
  ASSERT_EQ(tested.exit_code, 0) << tested.err;
  EXPECT_EQ(json::parse(tested.out).at("exit_unit"), 8);
  EXPECT_EQ(json::parse(tested.out).at("parameters"), exits.back().at("parameters"));

  for (const json& wanted : exits) {
    const json* smallest = nullptr;
    for (const json& exit : exits)
      if (exit.at("validation_accuracy") >= wanted.at("validation_accuracy") &&
          (smallest == nullptr || exit.at("parameters") < smallest->at("parameters")))
        smallest = &exit;
    const double accuracy = wanted.at("validation_accuracy").get<double>();
    if (accuracy > 0.0)
      expect_exit(exported({"--exit-accuracy", fmt::format("{}", accuracy)}), *smallest);
  }

  for (json& exit : summary["methods"][1]["exits"]) exit["validation_accuracy"] = 0.5;
  workspace_.write("run/summary.json", summary.dump());
  expect_refusal(run({"export", "run", "--exit-accuracy", "0.9"}), 1,
                 "no exit of neuroflux has a validation accuracy of 0.9; the best has 0.5000");
}

TEST_F(Training, ExportNamesWhatIsNotThere) {
  ASSERT_EQ(run(Arguments{"train", "--run-dir", "run"} + kTinyJoined).exit_code, 0);
  const auto refusal = [&](const Arguments& arguments, const char* why) {
    expect_refusal(run(Arguments{"export"} + arguments), 1, why);
    EXPECT_FALSE(fs::exists(file("exit.safetensors")));
  };
  refusal({"nowhere", "--exit", "1"}, "nowhere: is no run folder");
  refusal({"run", "--exit", "99"}, "neuroflux has no exit 99, it has 1 to ");
  refusal({"run", "--exit", "1", "--method", "local"}, "run has no method local");
  refusal({"run", "--exit", "1", "--out", "no/where.safetensors"}, "no/where.safetensors");
  refusal({"run", "--exit", "1", "--out", "run/neuroflux.safetensors"}, "stays as it is");
  const fs::path exits = file("run/neuroflux-exits.safetensors");
  const std::string bytes = read_text(exits);
  workspace_.write("run/neuroflux-exits.safetensors", bytes.substr(0, bytes.size() - 4));
  refusal({"run", "--exit", "1"}, "run/neuroflux-exits.safetensors");
  fs::remove(exits);
  refusal({"run", "--exit", "1"}, "run/neuroflux-exits.safetensors: is not there");
  fs::remove(file("run/summary.json"));
  refusal({"run", "--exit", "1"}, "summary.json");
}

}  // namespace
}  // namespace nf::test
