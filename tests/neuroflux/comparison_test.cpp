#include "neuroflux/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "neuroflux/energy.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(Spread, IsMeanAndSampleDeviation) {
  EXPECT_FALSE(spread_of({}));
  const Spread one = *spread_of({3.0});
  EXPECT_EQ(one.mean, 3.0);
  EXPECT_EQ(one.deviation, 0.0);
  const Spread three = *spread_of({1.0, 2.0, 6.0});
  EXPECT_DOUBLE_EQ(three.mean, 3.0);
  EXPECT_DOUBLE_EQ(three.deviation, std::sqrt((4.0 + 1.0 + 9.0) / 2.0));
  EXPECT_EQ(three.count, 3);
}

MethodSummary method(const char* name, std::vector<AccuracyPoint> history) {
  MethodSummary method;
  method.name = name;
  method.fits = true;
  method.full_parameters = 1000;
  method.parameters = 100;
  method.history = std::move(history);
  method.validation_accuracy = method.history.back().validation_accuracy;
  method.total_seconds = method.history.back().elapsed_seconds;
  return method;
}

TEST(CompareWithBp, FindsWhenItsFinalAccuracyWasFirstReached) {
  Summary summary;
  summary.methods = {
      method("bp", {{10, 8, 0.70}, {20, 16, 0.82}, {30, 24, 0.80}}),
      method("neuroflux", {{2, 1, 0.60}, {5, 4, 0.80}, {9, 6, 0.90}}),
      method("local", {{50, 40, 0.79}}),
  };
  compare_with_bp(summary);
  EXPECT_EQ(summary.methods[0].seconds_to_bp_accuracy, 20.0);  // before it fell back
  EXPECT_EQ(summary.methods[1].seconds_to_bp_accuracy, 5.0);
  EXPECT_FALSE(summary.methods[2].seconds_to_bp_accuracy);
  summary.methods[0].validation_accuracy.reset();  // it did not finish
  for (MethodSummary& one : summary.methods) one.seconds_to_bp_accuracy.reset();
  compare_with_bp(summary);
  EXPECT_FALSE(summary.methods[1].seconds_to_bp_accuracy);
}

std::vector<ComparisonRun> two_seeds() {
  std::vector<ComparisonRun> runs;
  for (const std::uint64_t seed : {0U, 1U}) {
    ComparisonRun run;
    run.folder = fmt::format("64-seed{}", seed);
    run.summary.model = "vgg11";
    run.summary.device = "cpu";
    run.summary.budget_bytes = 64;
    run.summary.seed = seed;
    const auto s = static_cast<double>(seed);
    run.summary.methods = {method("bp", {{10 + s, 8, 0.8}}),
                           method("neuroflux", {{5, 4, 0.8 + 0.1 * s}})};
    run.summary.methods[1].batches = {64, 32};
    MethodSummary local;
    local.name = "local";
    local.minimum_budget_bytes = 128;
    local.full_parameters = 1000;
    run.summary.methods.push_back(local);
    compare_with_bp(run.summary);
    runs.push_back(std::move(run));
  }
  return runs;
}

TEST(Comparison, TakesSeedsTogether) {
  const std::vector<MethodSpread> methods = summarise(two_seeds());
  ASSERT_EQ(methods.size(), 3U);
  EXPECT_EQ(methods[0].method, "bp");
  EXPECT_DOUBLE_EQ(methods[0].total_seconds->mean, 10.5);
  EXPECT_EQ(methods[1].seeds, 2);
  EXPECT_DOUBLE_EQ(methods[1].sooner_than_bp->mean, (10.0 / 5.0 + 11.0 / 5.0) / 2.0);
  EXPECT_DOUBLE_EQ(methods[1].validation_accuracy->mean, 0.85);
  EXPECT_EQ(methods[2].fits, 0);
  EXPECT_FALSE(methods[2].total_seconds);
}

TEST(Comparison, TablesHaveAsManyCellsInEveryRow) {
  const std::vector<ComparisonRun> runs = two_seeds();
  const auto lines = [](const std::string& text) {
    std::vector<std::string> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(line);
    return all;
  };
  const std::vector<std::string> markdown = lines(to_markdown(runs));
  ASSERT_EQ(markdown.size(), 2U + 3U);
  for (const std::string& line : markdown)
    EXPECT_EQ(std::ranges::count(line, '|'), std::ranges::count(markdown.front(), '|')) << line;
  EXPECT_THAT(markdown.back(), HasSubstr("does not fit, needs 128 B"));
  EXPECT_THAT(markdown[3], HasSubstr("85.00 ± 7.07"));
  const std::vector<std::string> csv = lines(to_csv(runs));
  ASSERT_EQ(csv.size(), 1U + 2U * 3U);
  // The list of batches holds a comma of its own, in quotes.
  EXPECT_EQ(std::ranges::count(csv[2], ','), std::ranges::count(csv[0], ',') + 1);
  EXPECT_EQ(std::ranges::count(csv[3], ','), std::ranges::count(csv[0], ','));
  const nlohmann::json document = to_json(runs);
  EXPECT_EQ(document.at("runs")[1].at("folder"), "64-seed1");
  EXPECT_DOUBLE_EQ(document.at("methods")[1].at("sooner_than_bp").at("mean"), 2.1);
  EXPECT_TRUE(document.at("methods")[2].at("test_accuracy").is_null());
}

TEST(Comparison, CountsWhatDivergedAndAveragesTheRest) {
  std::vector<ComparisonRun> runs = two_seeds();
  MethodSummary& bp = runs[1].summary.methods[0];
  bp.diverged = true;
  bp.error = "the loss is nan";
  bp.total_seconds.reset();
  bp.cache_bytes = 7;  // as planned
  const MethodSpread spread = summarise(runs)[0];
  EXPECT_EQ(spread.seeds, 2);
  EXPECT_EQ(spread.diverged, 1);
  EXPECT_EQ(spread.total_seconds->count, 1);
  EXPECT_FALSE(spread.cache_bytes);
  EXPECT_THAT(to_markdown(runs), HasSubstr("| bp | 2, 1 diverged |"));
  EXPECT_THAT(to_csv(runs), HasSubstr(",1,bp,diverged,"));
}

class Powercap : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / fmt::format("powercap-{}", getpid());
    zone("intel-rapl:0", 1000, 5000000);
    zone("intel-rapl:0:0", 1, 5000000);  // cores within the package
    zone("intel-rapl:1", 4900000, 5000000);
    for (const char* package : {"0", "1"})
      std::ofstream(root_ / fmt::format("intel-rapl:{}", package) / "name")
          << "package-" << package << '\n';
    fs::create_directories(root_ / "intel-rapl");
  }
  void TearDown() override { fs::remove_all(root_); }
  void zone(const std::string& name, std::uint64_t energy, std::uint64_t range) const {
    fs::create_directories(root_ / name);
    std::ofstream(root_ / name / "max_energy_range_uj") << range << '\n';
    std::ofstream(root_ / name / "energy_uj") << energy << '\n';
  }
  fs::path root_;
};

TEST_F(Powercap, SumsPackagesAndUnderstandsWrapping) {
  EnergyMeter meter({}, root_);
  EXPECT_EQ(meter.joules(), 0.0);
  zone("intel-rapl:0", 2001000, 5000000);  // + 2 J
  zone("intel-rapl:1", 400000, 5000000);   // wrapped: + 0.5 J
  EXPECT_NEAR(*meter.joules(), 2.5, 1e-9);
  zone("intel-rapl:0", 2001500, 5000000);
  EXPECT_NEAR(*meter.joules(), 2.5005, 1e-9);
  fs::remove(root_ / "intel-rapl:1" / "energy_uj");  // rights may go
  EXPECT_NEAR(*meter.joules(), 2.5005, 1e-9);
}

TEST_F(Powercap, ThePlatformIsNotAddedToThePackagesItHolds) {
  zone("intel-rapl:2", 1000, 5000000);
  std::ofstream(root_ / "intel-rapl:2" / "name") << "psys\n";
  EnergyMeter meter({}, root_);
  zone("intel-rapl:0", 2001000, 5000000);  // + 2 J
  zone("intel-rapl:2", 3001000, 5000000);  // + 3 J, these among them
  EXPECT_NEAR(*meter.joules(), 2.0, 1e-9);
}

TEST_F(Powercap, AGpuIsAddedWhereItTells) {
  std::optional<double> told = 700.0;
  const auto gpu = [&] { return told; };
  EnergyMeter both(gpu, root_);
  EnergyMeter alone(gpu, root_ / "none");
  zone("intel-rapl:0", 2001000, 5000000);  // + 2 J
  told = 705.0;
  EXPECT_NEAR(*both.joules(), 7.0, 1e-9);
  told = std::nullopt;  // for once
  EXPECT_NEAR(*both.joules(), 7.0, 1e-9);
  told = 3.0;  // the driver was loaded again
  EXPECT_NEAR(*both.joules(), 7.0, 1e-9);
  told = 4.0;
  EXPECT_NEAR(*both.joules(), 8.0, 1e-9);
  EXPECT_NEAR(*alone.joules(), 0.0, 1e-9);  // what it took in between is not known
  told = std::nullopt;
  EXPECT_FALSE(EnergyMeter(gpu, root_ / "none").joules());
}

TEST_F(Powercap, NothingToReadIsNoFigure) {
  EXPECT_FALSE(EnergyMeter({}, root_ / "none").joules());
  std::ofstream(root_ / "intel-rapl:0" / "energy_uj") << "secret\n";
  fs::remove_all(root_ / "intel-rapl:1");
  EXPECT_FALSE(EnergyMeter({}, root_).joules());
}

}  // namespace
}  // namespace nf
