#include "neuroflux/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "neuroflux/time_profile.h"
#include "nn/models/registry.h"

namespace nf {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class PlanFile : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / fmt::format("nf-plan-{}.json", getpid());
    net_ = nn::make_model("vgg11", {.input = {16, 16, 3}, .classes = 10, .width = 0.125});
    rule_ = make_auxiliary_rule("adaptive");
    options_.budget = std::int64_t{2} << 20;
    options_.batch = 16;
    options_.train_count = 200;
    options_.validation_count = 40;
    times_ = make_predicted_times(target_, options_.optimizer, nominal_speed(target_));
    plan_ = make_plan(*net_, *rule_, options_, target_, *times_);
    ASSERT_TRUE(plan_.fits);
    ASSERT_GT(plan_.blocks.size(), 1U);
    document_ = to_json(plan_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  void write(const std::string& text) const { std::ofstream(path_) << text; }
  Plan read_and_complete() {
    write(document_.dump());
    return complete_plan(*net_, *rule_, read_plan_file(path_, *net_), options_, target_, *times_);
  }
  std::string refusal() {
    try {
      read_and_complete();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  std::filesystem::path path_;
  std::unique_ptr<nn::Model> net_;
  std::shared_ptr<const AuxiliaryRule> rule_;
  PlanOptions options_;
  ContextOptions target_{.threads = 1};
  std::unique_ptr<TimeModel> times_;
  Plan plan_;
  json document_;
};

TEST_F(PlanFile, ComesBackAsItWas) {
  const Plan again = read_and_complete();
  EXPECT_EQ(read_plan_rule(path_), plan_.auxiliary_rule);
  EXPECT_EQ(again.partition, "given");
  ASSERT_EQ(again.blocks.size(), plan_.blocks.size());
  for (std::size_t i = 0; i < plan_.blocks.size(); ++i) {
    EXPECT_EQ(again.blocks[i].first_unit, plan_.blocks[i].first_unit);
    EXPECT_EQ(again.blocks[i].last_unit, plan_.blocks[i].last_unit);
    EXPECT_EQ(again.blocks[i].batch, plan_.blocks[i].batch);
    EXPECT_EQ(again.blocks[i].predicted_peak_bytes, plan_.blocks[i].predicted_peak_bytes);
    EXPECT_EQ(again.blocks[i].cache_bytes, plan_.blocks[i].cache_bytes);
  }
  EXPECT_DOUBLE_EQ(again.expected_seconds, plan_.expected_seconds);
  for (std::size_t i = 0; i < plan_.units.size(); ++i)
    EXPECT_EQ(again.units[i].auxiliary_width, plan_.units[i].auxiliary_width);
}

TEST_F(PlanFile, TellsWhichUnitsAreJoined) {
  write(document_.dump());
  EXPECT_EQ(read_plan_units(path_, *net_), joined_sizes(plan_));
  // Of plans that know nothing of it.
  for (json& unit : document_["units"]) unit.erase("joined_units");
  write(document_.dump());
  EXPECT_THAT(read_plan_units(path_, *net_), testing::Each(1));
  const auto refusal_of = [&](const json& joined) -> std::string {
    document_["units"][1]["joined_units"] = joined;
    write(document_.dump());
    try {
      read_plan_units(path_, *net_);
    } catch (const DataError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal_of(0), HasSubstr("unit 2: joined_units is 0; it must be at least 1"));
  EXPECT_THAT(refusal_of(-3), HasSubstr("unit 2: joined_units is -3"));
  EXPECT_THAT(refusal_of(1.5), HasSubstr("unit 2: joined_units is 1.5"));
  EXPECT_THAT(refusal_of(2), HasSubstr("has 9 units, vgg11 has 8"));
  EXPECT_THAT(refusal_of(std::numeric_limits<std::int32_t>::max()), HasSubstr("vgg11 has 8"));
}

TEST_F(PlanFile, OfARunIsReadToo) {
  document_["name"] = "neuroflux";
  document_ = json{{"methods", {{{"name", "bp"}}, document_}}};
  EXPECT_EQ(read_and_complete().blocks.size(), plan_.blocks.size());
  EXPECT_EQ(read_plan_rule(path_), "adaptive");
}

TEST_F(PlanFile, SaysWhenStepsUpdate) {
  write(document_.dump());
  EXPECT_EQ(read_plan_update(path_), nn::UpdateMoment::immediate);
  options_.optimizer.update = nn::UpdateMoment::together;
  write(to_json(make_plan(*net_, *rule_, options_, target_, *times_)).dump());
  EXPECT_EQ(read_plan_update(path_), nn::UpdateMoment::together);
  document_.erase("update");
  write(document_.dump());
  EXPECT_EQ(read_plan_update(path_), std::nullopt);
  document_["update"] = "soon";
  write(document_.dump());
  try {
    read_plan_update(path_);
    ADD_FAILURE() << "was taken";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("update is \"soon\"; it must be immediate or together"));
  }
}

TEST_F(PlanFile, SaysHowManyViewsAreCached) {
  options_.cache_views = 3;
  document_ = to_json(make_plan(*net_, *rule_, options_, target_, *times_));
  const auto views = [&] {
    write(document_.dump());
    return read_plan_views(path_);
  };
  EXPECT_EQ(views(), 3);
  document_.erase("cache_views");
  EXPECT_EQ(views(), std::nullopt);
  for (const json& wrong : {json(0), json(-1), json(1001), json("two")}) {
    document_["cache_views"] = wrong;
    EXPECT_THROW(views(), DataError) << wrong;
  }
}

TEST_F(PlanFile, MayBeEdited) {
  document_["blocks"][0]["batch"] = 3;
  document_["units"][0]["auxiliary_width"] = 5;
  const Plan edited = read_and_complete();
  EXPECT_EQ(edited.blocks[0].batch, 3);
  EXPECT_EQ(edited.units[0].auxiliary_width, 5);
  EXPECT_LT(edited.blocks[0].predicted_peak_bytes, plan_.blocks[0].predicted_peak_bytes);
}

TEST_F(PlanFile, ThatDoesNotFitSaysWhatItNeeds) {
  document_["blocks"][0]["batch"] = 200;
  EXPECT_THAT(refusal(), HasSubstr("plan: block 1 (units 1-"));
  EXPECT_THAT(refusal(), HasSubstr("the budget is 2097152 bytes"));
  EXPECT_THROW(read_and_complete(), DoesNotFit);
}

struct Damage {
  const char* name;
  std::function<void(json&)> harm;
  const char* message;
};

TEST_F(PlanFile, DamageIsNamedWithItsPlace) {
  const std::vector<Damage> damages{
      {"NoUnits", [](json& d) { d.erase("units"); }, "units is missing"},
      {"UnitsNoList", [](json& d) { d["units"] = 3; }, "units is not a list"},
      {"TooFewUnits", [](json& d) { d["units"].erase(0); }, "has 7 units, vgg11 has 8"},
      {"OtherName", [](json& d) { d["units"][2]["name"] = "stem"; },
       "unit 3: is named \"stem\", vgg11's is \"conv3\""},
      {"NameNoText", [](json& d) { d["units"][2]["name"] = 1; }, "unit 3: name is not a text"},
      {"UnitNoObject", [](json& d) { d["units"][1] = 7; }, "unit 2: name is missing"},
      {"WidthText", [](json& d) { d["units"][1]["auxiliary_width"] = "16"; },
       "unit 2: auxiliary_width is \"16\"; it must be a whole number"},
      {"WidthReal", [](json& d) { d["units"][1]["auxiliary_width"] = 1.5; }, "a whole number"},
      {"WidthHuge", [](json& d) { d["units"][1]["auxiliary_width"] = 1ULL << 63; },
       "a whole number"},
      {"WidthZero", [](json& d) { d["units"][1]["auxiliary_width"] = 0; },
       "unit 2 (conv2) has an auxiliary width of 0; it must be in [1, 65536]"},
      {"WidthOfTheHead", [](json& d) { d["units"][7]["auxiliary_width"] = 16; },
       "unit 8 (conv8) has an auxiliary width of 16; it must be 0"},
      {"NoBlocks", [](json& d) { d["blocks"] = json::array(); }, "it has no blocks"},
      {"NoBatch", [](json& d) { d["blocks"][0].erase("batch"); }, "block 1: batch is missing"},
      {"BatchZero", [](json& d) { d["blocks"][0]["batch"] = 0; },
       "block 1 has batch 0; it must be in [1, 200]"},
      {"BatchBeyondTheSet", [](json& d) { d["blocks"][0]["batch"] = 201; },
       "block 1 has batch 201"},
      {"BatchNegative", [](json& d) { d["blocks"][0]["batch"] = -4; }, "block 1 has batch -4"},
      {"Gap", [](json& d) { d["blocks"].erase(0); }, "must begin with unit 1"},
      {"Overlap", [](json& d) { d["blocks"][1]["first_unit"] = d["blocks"][0]["first_unit"]; },
       "block 2 has units"},
      {"Backwards", [](json& d) { d["blocks"][0]["last_unit"] = 0; }, "block 1 has units 1-0"},
      {"Beyond", [](json& d) { d["blocks"].back()["last_unit"] = 99; }, "end by unit 8"},
      {"EndMissing", [](json& d) { d["blocks"].erase(d["blocks"].size() - 1); }, "are in no block"},
  };
  const json whole = document_;
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.name);
    document_ = whole;
    damage.harm(document_);
    EXPECT_THAT(refusal(), HasSubstr(damage.message));
  }
}

TEST_F(PlanFile, ThatIsNoneIsRefusedWithItsName) {
  for (const auto& [text, message] :
       {std::pair{"{\"units\": [", "is not JSON"}, std::pair{"", "is not JSON"},
        std::pair{"[1, 2]", "is not a JSON object"},
        std::pair{"{\"methods\": [3, {\"name\": \"bp\"}]}", "has no method named neuroflux"}}) {
    write(text);
    for (const auto& read : std::vector<std::function<void()>>{
             [&] { read_plan_file(path_, *net_); }, [&] { read_plan_rule(path_); }})
      try {
        read();
        ADD_FAILURE() << text;
      } catch (const DataError& error) {
        EXPECT_THAT(error.what(), HasSubstr(message));
        EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      }
  }
  std::filesystem::remove(path_);
  EXPECT_THROW(read_plan_file(path_, *net_), DataError);
}

}  // namespace
}  // namespace nf
