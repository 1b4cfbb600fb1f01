#include "neuroflux/run_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "neuroflux/comparison.h"
#include "neuroflux/method.h"
#include "neuroflux/plan_file.h"
#include "neuroflux/report/report.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

// A net of three units in two blocks, of which the second was not trained.
Plan small_plan() {
  Plan plan;
  plan.auxiliary_rule = "adaptive";
  plan.partition = "optimal";
  plan.time_source = "predicted";
  for (const char* name : {"conv1", "conv2", "conv3"}) {
    UnitPlan unit;
    unit.name = name;
    unit.output = {8, 8, 4};
    unit.parameters = 10;
    plan.units.push_back(unit);
  }
  plan.blocks = {{.first_unit = 0,
                  .last_unit = 1,
                  .batch = 8,
                  .predicted_peak_bytes = 1000,
                  .cache_bytes = 77,
                  .time = {.train = 1.5}},
                 {.first_unit = 2, .last_unit = 2, .batch = 16, .predicted_peak_bytes = 900}};
  return plan;
}

MethodSummary small_method() {
  MethodSummary method;
  method.name = "neuroflux";
  method.fits = true;
  method.update = nn::UpdateMoment::immediate;
  method.batches = {8};
  method.predicted_peak_bytes = method.measured_peak_bytes = 1000;
  method.train_seconds = 2.0;
  method.total_seconds = 2.5;
  method.validation_accuracy = 0.75;
  method.parameters = 40;
  method.full_parameters = 100;
  method.flops = 2000;
  method.history = {{0.5, 0.4, 0.5}, {2.0, 1.6, 0.75}};
  method.unit_count = 3;
  method.cache_bytes = 77;
  BlockSummary trained;
  trained.first_unit = 1;
  trained.last_unit = 2;
  trained.batch = 8;
  trained.predicted_peak_bytes = 1000;
  trained.measured_peak_bytes = 1000;
  trained.cache_bytes = 77;
  trained.predicted_seconds = 1.5;
  trained.train_seconds = 2.0;
  trained.cache_seconds = 0.1;
  trained.cache_wait_seconds = 0.2;
  trained.evaluation_seconds = 0.4;
  trained.evaluation_wait_seconds = 0.1;
  BlockSummary skipped;
  skipped.first_unit = skipped.last_unit = 3;
  skipped.batch = 16;
  method.blocks = {trained, skipped};
  method.exits = {{1, 20, 1000, 0.5, 900.5}, {2, 40, 2000, 0.75, 400.0}, {3, 60, 9000, 0.7, {}}};
  method.exit_unit = 2;
  method.wanted_exit_accuracy = 0.625;
  method.stopped_early = true;
  return method;
}

Summary small_summary() {
  Summary summary;
  summary.model = "vgg11";
  summary.input = {32, 32, 3};
  summary.format = {{28, 30, 3}, 1};
  summary.classes = 10;
  summary.device = "cpu";
  summary.threads = 2;
  summary.seed = std::numeric_limits<std::uint64_t>::max();
  summary.budget_bytes = 2000;
  summary.train_images = 90;
  MethodSummary unfit;
  unfit.name = "bp";
  unfit.minimum_budget_bytes = 5000;
  MethodSummary failed;
  failed.name = "local";
  failed.fits = true;
  failed.error = "no space left";
  MethodSummary diverged;
  diverged.name = "bp-checkpoint";
  diverged.fits = diverged.diverged = true;
  diverged.error = "the loss is nan";
  diverged.history = {{0.5, 0.4, 0.5}};
  summary.methods = {unfit, failed, small_method(), diverged};
  return summary;
}

class RunFolderRead : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("nf-run-<&\">-{}", getpid());
    summary_ = to_json(small_summary());
    json method = to_json(small_plan());
    method["name"] = "neuroflux";
    plan_ = {{"methods", {{{"name", "bp"}}, {{"name", "local"}}, method}}};
    write_run(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  void write_run(const fs::path& folder) const {
    fs::create_directories(folder);
    write(folder / "config.toml", "width = 0.5\nseed = 3\n");
    write(folder / "plan.json", plan_.dump());
    write(folder / "summary.json", summary_.dump());
  }
  std::string refusal() const {
    try {
      read_runs(folder_);
    } catch (const DataError& error) {
      return error.what();
    }
    return "accepted";
  }
  std::string refusal_of(const json& summary) const {
    write(folder_ / "summary.json", summary.dump());
    return refusal();
  }

  // Reads what is there; where that is accepted, a page about it can be made.
  void read_and_report(const std::string& what) const {
    try {
      std::vector<report::ReportRun> runs;
      for (RunRecord& record : read_runs(folder_)) runs.push_back({std::move(record), {}, "-"});
      EXPECT_THAT(report::make_report(runs), HasSubstr("</html>")) << what;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr(folder_.string())) << what;
    } catch (const std::exception& error) {
      ADD_FAILURE() << what << ": " << error.what();
    }
  }

  // Every value of the document in turn is replaced by another; then it is taken away.
  void damage_everywhere(const char* name, const json& document) const {
    const json flat = document.flatten();
    const std::vector<json> others{nullptr,
                                   true,
                                   "<x>",
                                   -1,
                                   0,
                                   1e300,
                                   json::array(),
                                   json::object(),
                                   std::numeric_limits<std::int64_t>::max()};
    for (const auto& [place, value] : flat.items()) {
      const json::json_pointer pointer(place);
      for (const json& other : others) {
        json damaged = document;
        damaged[pointer] = other;
        write(folder_ / name, damaged.dump());
        read_and_report(place + " = " + other.dump());
      }
      json damaged = document;
      json& parent = damaged[pointer.parent_pointer()];
      if (parent.is_object()) parent.erase(pointer.back());
      write(folder_ / name, damaged.dump());
      read_and_report(place + " taken away");
    }
    write(folder_ / name, document.dump());
  }

  fs::path folder_;
  json summary_, plan_;
};

TEST_F(RunFolderRead, GivesBackWhatWasWritten) {
  const std::vector<RunRecord> runs = read_runs(folder_);
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(to_json(runs[0].summary), summary_);
  EXPECT_EQ(runs[0].config, "width = 0.5\nseed = 3\n");
  EXPECT_EQ(runs[0].plan_of("bp"), nullptr);
  const Plan* plan = runs[0].plan_of("neuroflux");
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(to_json(*plan)["blocks"], to_json(small_plan())["blocks"]);
  EXPECT_EQ(plan->units[2].output, (Shape{8, 8, 4}));
}

// Before there was a choice all methods updated together.
TEST_F(RunFolderRead, WithoutAWordOfItUpdatesWereTogether) {
  summary_["methods"][2].erase("update");
  write_run(folder_);
  EXPECT_EQ(read_runs(folder_)[0].summary.methods[2].update, nn::UpdateMoment::together);
}

TEST_F(RunFolderRead, TakesAComparisonApart) {
  const fs::path first = folder_ / "2000-seed0", second = folder_ / "2000-seed1";
  write_run(first);
  summary_["seed"] = 1;
  write_run(second);
  write(folder_ / "summary.json",
        json{{"runs", {{{"folder", "2000-seed0"}}, {{"folder", "2000-seed1"}}}}}.dump());
  const std::vector<RunRecord> runs = read_runs(folder_);
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].folder, first);
  EXPECT_EQ(runs[1].summary.seed, 1U);
  for (const char* elsewhere : {"..", "../x", "/tmp", "", "2000-seed0/"}) {
    write(folder_ / "summary.json", json{{"runs", {{{"folder", elsewhere}}}}}.dump());
    EXPECT_THAT(refusal(), HasSubstr("runs[0].folder is \"")) << elsewhere;
  }
  write(folder_ / "summary.json", R"({"runs": []})");
  EXPECT_THAT(refusal(), HasSubstr("runs is empty"));
  write(folder_ / "summary.json", json{{"runs", {{{"folder", "2000-seed9"}}}}}.dump());
  EXPECT_THAT(refusal(), HasSubstr("2000-seed9"));
}

TEST_F(RunFolderRead, SaysWhichFileAndWhere) {
  json damaged = summary_;
  damaged["methods"][2]["exits"][1]["unit"] = 7;
  EXPECT_THAT(refusal_of(damaged), testing::AllOf(HasSubstr("summary.json: methods[2].exits[1]."
                                                            "unit is 7; the plan has 3 units"),
                                                  HasSubstr(folder_.string())));
  damaged = summary_;
  damaged["methods"][2]["blocks"][1]["first_unit"] = 2;
  EXPECT_THAT(refusal_of(damaged), HasSubstr("methods[2].blocks[1] has units 2-3; it must begin "
                                             "at 3"));
  damaged = summary_;
  damaged["methods"][2]["exit_unit"] = 3;
  damaged["methods"][2]["exits"].erase(2);
  EXPECT_THAT(refusal_of(damaged), HasSubstr("exit_unit is 3; no exit is there"));
  damaged = summary_;
  damaged["methods"][1]["validation_accuracy"] = 1.01;
  EXPECT_THAT(refusal_of(damaged), HasSubstr("is 1.01; it must be in [0, 1]"));
  damaged = summary_;
  damaged["methods"][1]["update"] = "later";
  EXPECT_THAT(refusal_of(damaged), HasSubstr("methods[1].update is \"later\"; it must be together "
                                             "or immediate"));
  damaged = summary_;
  damaged["methods"][1].erase("history");
  EXPECT_THAT(refusal_of(damaged), HasSubstr("methods[1] has no history"));
  damaged = summary_;
  damaged["stored_pixels"]["tables"] = 2;
  EXPECT_THAT(refusal_of(damaged), HasSubstr("stored_pixels is [28,30,3] with 2 tables; no input "
                                             "of [32,32,3] is made of that"));
  damaged = summary_;
  damaged["stored_pixels"]["shape"][2] = 1;
  EXPECT_THAT(refusal_of(damaged), HasSubstr("stored_pixels is [28,30,1] with 1 tables"));
  damaged = summary_;
  damaged["seed"] = -1;
  EXPECT_THAT(refusal_of(damaged), HasSubstr("seed is -1"));
  EXPECT_THAT(refusal_of(summary_), "accepted");
  fs::remove(folder_ / "plan.json");
  EXPECT_THAT(refusal(), HasSubstr("plan.json: can't be read"));
  fs::remove_all(folder_);
  EXPECT_THAT(refusal(), HasSubstr("is no run folder"));
}

TEST_F(RunFolderRead, RefusesFilesThatWereCut) {
  const std::string whole = summary_.dump();
  for (std::size_t bytes = 0; bytes < whole.size(); bytes += 7) {
    write(folder_ / "summary.json", whole.substr(0, bytes));
    EXPECT_THAT(refusal(), HasSubstr("summary.json: is not JSON")) << bytes;
  }
}

TEST_F(RunFolderRead, NoDamageOfASummaryGetsFurtherThanADataError) {
  damage_everywhere("summary.json", summary_);
}

TEST_F(RunFolderRead, NoDamageOfAPlanGetsFurtherThanADataError) {
  damage_everywhere("plan.json", plan_);
}

// The step that is run again copies what the run copied.
TEST_F(RunFolderRead, StepsStageTheStoredPixelsOfTheRun) {
  RunRecord record = read_runs(folder_)[0];
  EXPECT_EQ(record.summary.format, (nn::PixelFormat{{28, 30, 3}, 1}));
  MethodSummary bp;
  bp.name = "bp";
  bp.fits = true;
  bp.batches = {4};
  ExperimentOptions options;
  options.model = "vgg11";
  options.width = 0.125;
  const auto copies = [&](std::int64_t bytes) {
    const report::StepMemory step = report::trace_step(record, bp, options);
    return std::ranges::count_if(step.events, [&](const MemoryEvent& event) {
      return event.action == MemoryAction::allocate && event.category == Category::input &&
             event.asked == bytes;
    });
  };
  EXPECT_EQ(copies(4 * 28 * 30 * 3), 1);
  record.summary.format.reset();
  EXPECT_EQ(copies(4 * 28 * 30 * 3), 0);
}

TEST_F(RunFolderRead, ReportSaysInWordsWhatIsMissing) {
  const std::string page = report::make_report({{read_runs(folder_)[0], {}, "no such device"}});
  EXPECT_THAT(page, HasSubstr("bp does not fit 2.0 KiB: it needs at least 4.9 KiB."));
  EXPECT_THAT(page, HasSubstr("local was not finished: no space left"));
  EXPECT_THAT(page, HasSubstr("bp-checkpoint diverged: the loss is nan"));
  EXPECT_THAT(page, HasSubstr("The step could not be run again: no such device"));
  EXPECT_THAT(page, HasSubstr("not trained"));
  EXPECT_THAT(page, HasSubstr("measured; training waited 10.0 %"));
  EXPECT_THAT(page, HasSubstr("nf-run-&lt;&amp;&quot;&gt;-"));
}

// Each method in a run folder of its own, bp's first.
TEST_F(RunFolderRead, ReportHoldsAMethodAgainstTheBpOfAnotherRun) {
  const RunRecord both = read_runs(folder_)[0];
  RunRecord apart = both;
  apart.summary.methods = {both.summary.methods[2]};
  RunRecord bp = both;
  bp.plans.clear();
  bp.summary.methods.resize(1);
  MethodSummary& method = bp.summary.methods[0];
  method.fits = true;
  method.total_seconds = 90.0;
  method.validation_accuracy = 0.75;  // which the other has after 2 s
  method.seconds_to_bp_accuracy = 88.0;
  const auto page = [&] { return report::make_report({{bp, {}, "-"}, {apart, {}, "-"}}); };
  EXPECT_THAT(page(), HasSubstr("<td>88 s</td>"));
  const std::string reached = "<td>2.5 s</td><td>2 s</td>";  // behind the total
  EXPECT_THAT(page(), HasSubstr(reached));
  bp.summary.seed = 1;
  EXPECT_THAT(page(), testing::Not(HasSubstr(reached)));
}

void expect_planned_steps(DeviceKind kind, std::optional<nn::UpdateMoment> update = {}) {
  ExperimentOptions options;
  options.training.optimizer.update = update;
  options.width = 0.125;
  options.batch = 16;
  options.budget = std::int64_t{24} << 20;
  options.methods = method_names();
  options.device.device.kind = kind;
  options.device.threads = 1;
  // So large that on a device which prepares images nothing takes more than copying them.
  const DataShape data{.sample = {16, 16, 3}, .classes = 4, .stored = {{{300, 300, 3}, 1}}};
  const ExperimentPlan plan = plan_experiment(options, data);
  RunRecord record{"run", plan.summary, "", {}};
  for (const auto& method : plan.methods)
    if (method->local_plan() != nullptr)
      record.plans.push_back({method->planned().name, *method->local_plan()});
  // The record says when steps updated, whatever the configuration would do today.
  options.training.optimizer.update.reset();
  for (const MethodSummary& method : plan.summary.methods) {
    ASSERT_TRUE(method.fits) << method.name;
    const report::StepMemory step = report::trace_step(record, method, options);
    std::int64_t peak = 0;
    for (const MemoryEvent& event : step.events) peak = std::max(peak, event.reserved);
    EXPECT_EQ(peak, *method.predicted_peak_bytes) << method.name;
    // It ends with the step: the net is still there.
    EXPECT_GT(step.events.back().by_category[static_cast<int>(Category::parameter)], 0)
        << method.name;
  }
  options.model = "vgg16";
  EXPECT_NO_THROW(report::trace_step(record, plan.summary.methods.front(), options));
  EXPECT_THROW(report::trace_step(record, plan.summary.methods.back(), options), Error);
}

TEST(StepMemory, IsTheStepThatWasPlannedToTheByte) {
  expect_planned_steps(DeviceKind::cpu);
  expect_planned_steps(DeviceKind::cpu, nn::UpdateMoment::immediate);
  expect_planned_steps(DeviceKind::cpu, nn::UpdateMoment::together);
#if defined(NF_SIMT)
  expect_planned_steps(DeviceKind::simt);
#endif
}

}  // namespace
}  // namespace nf
