// A plan as a file: what `plan --save` and every run write, what a person edits, what `--plan`
// runs.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/plan.h"

namespace nf {

/// {auxiliary_rule, partition, time_source, update, cache_views, cache_bytes, predicted_seconds,
/// expected_seconds, units: [{name, auxiliary_width, …}], blocks: [{first_unit, last_unit, batch,
/// …}]}. Units and blocks are counted from 1.
nlohmann::json to_json(const Plan& plan);

/// What a plan file decides: name of the auxiliary rule, the widths and the blocks, and where the
/// run does not, the cached views and the moment of updates. The file is a plan as above, or a
/// plan.json with one under methods; all else in it is ignored, predictions are made anew. Throws
/// DataError naming the file, the place and what is wrong there: not JSON, no such key, a value of
/// another type, units that are not the model's.
PlanChoice read_plan_file(const std::filesystem::path& path, const nn::Model& model);
/// How many of the model's own units each of the plan's is made of, one where the file says
/// nothing. Throws DataError as read_plan_file does, and where they are not as many as the model
/// has.
std::vector<std::int64_t> read_plan_units(const std::filesystem::path& path,
                                          const nn::Model& model);
/// Throws DataError as read_plan_file does, and for a rule that is neither the project's own nor
/// registered.
std::string read_plan_rule(const std::filesystem::path& path);
/// Where the run does not ask for several views: as many as the plan was made for, if the file has
/// it. Throws DataError for a number of views that can't be.
std::optional<std::int64_t> read_plan_views(const std::filesystem::path& path);
/// Where the run does not say when to update: what the plan was made for, if the file has it.
std::optional<nn::UpdateMoment> read_plan_update(const std::filesystem::path& path);

}  // namespace nf
