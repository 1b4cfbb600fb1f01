#include "neuroflux/plan_file.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/text.h"
#include "neuroflux/auxiliary.h"

namespace nf {
namespace {

using nlohmann::json;

// Reads values out of a document, naming file and place where one is not as it must be.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {
    std::ifstream in(path, std::ios::binary);
    check(in.good(), "can't be read");
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    document_ = json::parse(text, nullptr, false);
    check(!document_.is_discarded(), "is not JSON");
    check(document_.is_object(), "is not a JSON object");
  }

  // The plan itself, or the one of the method that has both units and blocks.
  const json& plan() const {
    if (!document_.contains("methods")) return document_;
    const json& methods = array(document_, "methods", "");
    for (const json& method : methods)
      if (method.is_object() && method.value("name", json()) == "neuroflux") return method;
    fail_data("has no method named neuroflux");
  }

  const json& array(const json& parent, const char* key, const std::string& place) const {
    const json& value = member(parent, key, place);
    check(value.is_array(), fmt::format("{}{} is not a list", place, key));
    return value;
  }

  bool has(const json& parent, const char* key) const {
    return parent.is_object() && parent.contains(key);
  }

  std::string text(const json& parent, const char* key, const std::string& place) const {
    const json& value = member(parent, key, place);
    check(value.is_string(), fmt::format("{}{} is not a text", place, key));
    return value.get<std::string>();
  }

  std::int64_t whole(const json& parent, const char* key, const std::string& place) const {
    const json& value = member(parent, key, place);
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() ||
                       value.get<std::uint64_t>() <= std::numeric_limits<std::int32_t>::max());
    check(fits, fmt::format("{}{} is {}; it must be a whole number", place, key, value.dump()));
    return value.get<std::int64_t>();
  }

  void check(bool holds, const std::string& what) const {
    if (!holds) fail_data(what);
  }

 private:
  const json& member(const json& parent, const char* key, const std::string& place) const {
    check(has(parent, key), fmt::format("{}{} is missing", place, key));
    return parent.at(key);
  }

  [[noreturn]] void fail_data(const std::string& what) const {
    throw DataError(fmt::format("plan file {}: {}", path_.string(), what));
  }

  std::filesystem::path path_;
  json document_;
};

json unit_json(const UnitPlan& unit) {
  return {{"name", unit.name},
          {"joined_units", unit.joined},
          {"output",
           std::vector<std::int64_t>(unit.output.extents().begin(), unit.output.extents().end())},
          {"parameters", unit.parameters},
          {"auxiliary_width", unit.auxiliary_width},
          {"auxiliary_parameters", unit.auxiliary_parameters},
          {"flops", unit.flops},
          {"auxiliary_flops", unit.auxiliary_flops},
          {"feasible_batch", unit.feasible_batch},
          {"minimum_budget_bytes", unit.minimum_budget},
          {"exit_parameters", unit.exit_parameters},
          {"exit_flops", unit.exit_flops},
          {"step_seconds", unit.step_seconds},
          {"why_width", unit.why_width},
          {"why_here", unit.why_here}};
}

json block_json(const BlockPlan& block) {
  json result{{"first_unit", block.first_unit + 1},
              {"last_unit", block.last_unit + 1},
              {"batch", block.batch},
              {"predicted_peak_bytes", block.predicted_peak_bytes},
              {"cache_bytes", block.cache_bytes},
              {"predicted_train_seconds", block.time.train},
              {"predicted_evaluation_seconds", block.time.evaluation},
              {"predicted_cache_seconds", block.time.cache}};
  if (block.linear_peak_bytes) result["linear_peak_bytes"] = *block.linear_peak_bytes;
  return result;
}

}  // namespace

json to_json(const Plan& plan) {
  json units = json::array(), blocks = json::array();
  for (const UnitPlan& unit : plan.units) units.push_back(unit_json(unit));
  for (const BlockPlan& block : plan.blocks) blocks.push_back(block_json(block));
  return {{"auxiliary_rule", plan.auxiliary_rule},
          {"partition", plan.partition},
          {"time_source", plan.time_source},
          {"update", to_string(plan.update)},
          {"cache_views", plan.cache_views},
          {"cache_bytes", plan.cache_bytes},
          {"predicted_seconds", plan.predicted_seconds},
          {"expected_seconds", plan.expected_seconds},
          {"units", std::move(units)},
          {"blocks", std::move(blocks)}};
}

PlanChoice read_plan_file(const std::filesystem::path& path, const nn::Model& model) {
  const Reader reader(path);
  const json& plan = reader.plan();
  PlanChoice choice;
  const json& units = reader.array(plan, "units", "");
  reader.check(
      static_cast<std::int64_t>(units.size()) == model.unit_count(),
      fmt::format("has {} units, {} has {}", units.size(), model.name(), model.unit_count()));
  for (std::size_t i = 0; i < units.size(); ++i) {
    const std::string place = fmt::format("unit {}: ", i + 1);
    const std::string name = reader.text(units[i], "name", place);
    const std::string& expected = model.unit(static_cast<std::int64_t>(i)).name();
    reader.check(name == expected, fmt::format("{}is named \"{}\", {}'s is \"{}\"", place, name,
                                               model.name(), expected));
    choice.widths.push_back(reader.whole(units[i], "auxiliary_width", place));
  }
  const json& blocks = reader.array(plan, "blocks", "");
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string place = fmt::format("block {}: ", i + 1);
    choice.blocks.push_back({reader.whole(blocks[i], "first_unit", place) - 1,
                             reader.whole(blocks[i], "last_unit", place) - 1,
                             reader.whole(blocks[i], "batch", place)});
  }
  return choice;
}

std::vector<std::int64_t> read_plan_units(const std::filesystem::path& path,
                                          const nn::Model& model) {
  const Reader reader(path);
  std::vector<std::int64_t> sizes;
  std::int64_t sum = 0;
  for (const json& unit : reader.array(reader.plan(), "units", "")) {
    const std::string place = fmt::format("unit {}: ", sizes.size() + 1);
    sizes.push_back(reader.has(unit, "joined_units") ? reader.whole(unit, "joined_units", place)
                                                     : 1);
    reader.check(sizes.back() >= 1,
                 fmt::format("{}joined_units is {}; it must be at least 1", place, sizes.back()));
    sum += sizes.back();
  }
  reader.check(sum == model.unit_count(),
               fmt::format("has {} units, {} has {}", sum, model.name(), model.unit_count()));
  return sizes;
}

std::string read_plan_rule(const std::filesystem::path& path) {
  const Reader reader(path);
  const std::string rule = reader.text(reader.plan(), "auxiliary_rule", "");
  const std::vector<std::string> known = auxiliary_rule_names();
  if (std::find(known.begin(), known.end(), rule) == known.end())
    reader.check(false, fmt::format("auxiliary_rule is \"{}\", which is not known; did you mean "
                                    "\"{}\"? One of your own must be registered",
                                    rule, nearest_name(rule, known)));
  return rule;
}

std::optional<std::int64_t> read_plan_views(const std::filesystem::path& path) {
  const Reader reader(path);
  const json& plan = reader.plan();
  if (!reader.has(plan, "cache_views")) return std::nullopt;
  const std::int64_t views = reader.whole(plan, "cache_views", "");
  reader.check(views >= 1 && views <= kMaxCacheViews,
               fmt::format("cache_views is {}; it must be in [1, {}]", views, kMaxCacheViews));
  return views;
}

std::optional<nn::UpdateMoment> read_plan_update(const std::filesystem::path& path) {
  const Reader reader(path);
  const json& plan = reader.plan();
  if (!reader.has(plan, "update")) return std::nullopt;
  const std::string moment = reader.text(plan, "update", "");
  reader.check(moment == "immediate" || moment == "together",
               fmt::format("update is \"{}\"; it must be immediate or together", moment));
  return nn::parse_update_moment(moment);
}

}  // namespace nf
