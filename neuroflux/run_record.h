// What a run left in its folder, read back: to look at runs, not to go on with them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "neuroflux/json_value.h"
#include "neuroflux/plan.h"
#include "neuroflux/summary.h"

namespace nf {

/// How a method cut the net, from plan.json. Of units: name, output, parameters, widths,
/// parameters of classifier and exit; of blocks: units, batch, predicted peak, cache and times.
struct RecordedPlan {
  std::string method;
  Plan plan;
};

struct RunRecord {
  std::filesystem::path folder;
  Summary summary;
  std::string config;  ///< config.toml as it lies there
  std::vector<RecordedPlan> plans;

  /// Null where the method is none that trains by parts.
  const Plan* plan_of(const std::string& method) const;
};

/// What to_json wrote of a method whose plan has `units`, 0 for one without blocks. Throws
/// DataError.
MethodSummary read_method(const JsonValue& value, std::int64_t units);

/// The runs of a folder: one, or those of the comparison that it holds, in its order. Throws
/// DataError naming the file, the place and what is wrong there: nothing there, not JSON, a key
/// that is missing, a value of another type or out of its range, units that the net does not have.
std::vector<RunRecord> read_runs(const std::filesystem::path& folder);

}  // namespace nf
