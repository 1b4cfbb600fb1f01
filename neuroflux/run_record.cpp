#include "neuroflux/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "engine/error.h"

namespace fs = std::filesystem;

namespace nf {
namespace {

constexpr std::int64_t kMostBytes = std::int64_t{1} << 60;

std::int64_t bytes(const JsonValue& value) {
  const std::int64_t number = value.whole();
  if (number > kMostBytes) value.fail(fmt::format("is {} bytes; no device has them", number));
  return number;
}

std::optional<std::int64_t> bytes_if(const JsonValue& parent, const char* key) {
  const auto value = parent.find(key);
  return value ? std::optional(bytes(*value)) : std::nullopt;
}

std::optional<std::int64_t> whole_if(const JsonValue& parent, const char* key,
                                     std::int64_t least = 0) {
  const auto value = parent.find(key);
  return value ? std::optional(value->whole(least)) : std::nullopt;
}

std::optional<double> real_if(const JsonValue& parent, const char* key, double most) {
  const auto value = parent.find(key);
  return value ? std::optional(value->real(0.0, most)) : std::nullopt;
}

std::optional<double> seconds_if(const JsonValue& parent, const char* key) {
  return real_if(parent, key, kMostSeconds);
}

// Units of a block, counted from 1; they must go on where the block before it ended.
std::pair<std::int64_t, std::int64_t> read_range(const JsonValue& block, std::int64_t after,
                                                 std::int64_t units) {
  const std::int64_t first = block.at("first_unit").whole(1);
  const std::int64_t last = block.at("last_unit").whole(1);
  if (first != after + 1 || last < first || last > units)
    block.fail(fmt::format("has units {}-{}; it must begin at {} and end at {} at most", first,
                           last, after + 1, units));
  return {first, last};
}

BlockSummary read_block(const JsonValue& value, std::int64_t after, std::int64_t units) {
  BlockSummary block;
  std::tie(block.first_unit, block.last_unit) = read_range(value, after, units);
  block.batch = value.at("batch").whole(1);
  block.predicted_peak_bytes = bytes(value.at("predicted_peak_bytes"));
  block.measured_peak_bytes = bytes_if(value, "measured_peak_bytes");
  block.cache_bytes = bytes(value.at("cache_bytes"));
  block.predicted_seconds = seconds_if(value, "predicted_seconds");
  block.train_seconds = seconds_if(value, "train_seconds");
  block.cache_seconds = seconds_if(value, "cache_seconds");
  block.cache_wait_seconds = seconds_if(value, "cache_wait_seconds");
  block.fill_wait_seconds = seconds_if(value, "fill_wait_seconds");
  block.evaluation_seconds = seconds_if(value, "evaluation_seconds");
  block.evaluation_wait_seconds = seconds_if(value, "evaluation_wait_seconds");
  block.cache_host_bytes = bytes_if(value, "cache_host_bytes");
  return block;
}

void read_status(const JsonValue& value, MethodSummary& method) {
  const std::string status = value.at("status").text();
  if (status != "ok" && status != "does-not-fit" && status != "diverged" && status != "failed")
    value.at("status").fail(
        fmt::format("is \"{}\"; it must be ok, does-not-fit, diverged or failed", status));
  method.fits = status != "does-not-fit";
  method.diverged = status == "diverged";
  if (method.diverged || status == "failed") method.error = value.at("error").text();
}

nn::UpdateMoment read_update(const JsonValue& value) {
  const std::string moment = value.text();
  if (moment != "together" && moment != "immediate")
    value.fail(fmt::format("is \"{}\"; it must be together or immediate", moment));
  return nn::parse_update_moment(moment);
}

void read_exits(const JsonValue& value, std::int64_t units, MethodSummary& method) {
  for (const JsonValue& exit : value.at("exits").list()) {
    method.exits.push_back({exit.at("unit").whole(1), exit.at("parameters").whole(),
                            exit.at("flops").whole(), exit.at("validation_accuracy").real(0.0, 1.0),
                            real_if(exit, "inference_images_per_second", kMostSpeed)});
    if (method.exits.back().unit > units)
      exit.at("unit").fail(
          fmt::format("is {}; the plan has {} units", method.exits.back().unit, units));
  }
  method.exit_unit = whole_if(value, "exit_unit", 1);
  const auto is_chosen = [&](const ExitSummary& exit) { return exit.unit == *method.exit_unit; };
  if (method.exit_unit && std::ranges::none_of(method.exits, is_chosen))
    value.at("exit_unit").fail(fmt::format("is {}; no exit is there", *method.exit_unit));
}

Shape read_shape(const JsonValue& value) {
  std::vector<std::int64_t> extents;
  for (const JsonValue& extent : value.list()) extents.push_back(extent.whole(1));
  if (extents.empty() || extents.size() > 3)
    value.fail(fmt::format("has {} extents; there must be one to three", extents.size()));
  return Shape(extents);
}

nn::PixelFormat read_format(const JsonValue& value, const Shape& input) {
  const nn::PixelFormat format{read_shape(value.at("shape")), value.at("tables").whole(1)};
  const std::int64_t channels = input[input.rank() - 1];
  if (format.stored.rank() != 3 || input.rank() != 3 || format.stored[2] != channels ||
      (format.tables != 1 && format.tables != channels))
    value.fail(fmt::format("is {} with {} tables; no input of {} is made of that",
                           format.stored.str(), format.tables, input.str()));
  return format;
}

Summary read_summary(const JsonValue& value, const RunRecord& record) {
  Summary summary;
  summary.model = value.at("model").text();
  summary.input = read_shape(value.at("input"));
  if (const auto stored = value.find("stored_pixels"))
    summary.format = read_format(*stored, summary.input);
  summary.classes = value.at("classes").whole(1);
  summary.device = value.at("device").text();
  summary.threads = value.at("threads").whole();
  summary.seed = value.at("seed").natural();
  summary.budget_bytes = bytes(value.at("budget_bytes"));
  summary.context_bytes = bytes_if(value, "context_bytes");
  summary.train_images = value.at("train_images").whole();
  summary.validation_images = value.at("validation_images").whole();
  summary.test_images = value.at("test_images").whole();
  for (const JsonValue& method : value.at("methods").list()) {
    const Plan* plan = record.plan_of(method.at("name").text());
    if (plan == nullptr && method.find("blocks"))
      method.fail("has blocks, of which plan.json says nothing");
    summary.methods.push_back(
        read_method(method, plan == nullptr ? 0 : static_cast<std::int64_t>(plan->units.size())));
  }
  return summary;
}

Plan read_plan(const JsonValue& value) {
  Plan plan;
  plan.auxiliary_rule = value.at("auxiliary_rule").text();
  plan.partition = value.at("partition").text();
  plan.time_source = value.at("time_source").text();
  plan.predicted_seconds = value.at("predicted_seconds").real(0.0, kMostSeconds);
  plan.expected_seconds = value.at("expected_seconds").real(0.0, kMostSeconds);
  for (const JsonValue& entry : value.at("units").list()) {
    UnitPlan unit;
    unit.name = entry.at("name").text();
    unit.joined = entry.find("joined_units") ? entry.at("joined_units").whole(1) : 1;
    unit.output = read_shape(entry.at("output"));
    unit.parameters = entry.at("parameters").whole();
    unit.auxiliary_width = entry.at("auxiliary_width").whole();
    unit.auxiliary_parameters = entry.at("auxiliary_parameters").whole();
    unit.feasible_batch = entry.at("feasible_batch").whole();
    unit.exit_parameters = entry.at("exit_parameters").whole();
    plan.units.push_back(std::move(unit));
  }
  const auto units = static_cast<std::int64_t>(plan.units.size());
  for (const JsonValue& entry : value.at("blocks").list()) {
    const std::int64_t after = plan.blocks.empty() ? 0 : plan.blocks.back().last_unit + 1;
    const auto [first, last] = read_range(entry, after, units);
    BlockPlan block;
    block.first_unit = first - 1;
    block.last_unit = last - 1;
    block.batch = entry.at("batch").whole(1);
    block.predicted_peak_bytes = bytes(entry.at("predicted_peak_bytes"));
    block.cache_bytes = bytes(entry.at("cache_bytes"));
    block.time.train = entry.at("predicted_train_seconds").real(0.0, kMostSeconds);
    block.time.evaluation = entry.at("predicted_evaluation_seconds").real(0.0, kMostSeconds);
    block.time.cache = entry.at("predicted_cache_seconds").real(0.0, kMostSeconds);
    plan.blocks.push_back(block);
  }
  plan.fits = !plan.blocks.empty();
  return plan;
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in.good()) throw DataError(fmt::format("{}: can't be read", path.string()));
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

RunRecord read_run(const fs::path& folder) {
  RunRecord record{folder, {}, read_text(folder / "config.toml"), {}};
  for (const JsonValue& method : JsonValue::read(folder / "plan.json").at("methods").list())
    if (method.find("units")) record.plans.push_back({method.at("name").text(), read_plan(method)});
  record.summary = read_summary(JsonValue::read(folder / "summary.json"), record);
  return record;
}

}  // namespace

MethodSummary read_method(const JsonValue& value, std::int64_t units) {
  MethodSummary method;
  method.name = value.at("name").text();
  read_status(value, method);
  for (const JsonValue& batch : value.at("batches").list())
    method.batches.push_back(batch.whole(1));
  if (const auto update = value.find("update")) method.update = read_update(*update);
  method.micro_batch = whole_if(value, "micro_batch", 1);
  if (const auto segments = value.find("segments"))
    for (const JsonValue& first : segments->list()) method.segments.push_back(first.whole(1));
  method.predicted_peak_bytes = bytes_if(value, "predicted_peak_bytes");
  method.measured_peak_bytes = bytes_if(value, "measured_peak_bytes");
  method.predicted_seconds = seconds_if(value, "predicted_seconds");
  method.train_seconds = seconds_if(value, "train_seconds");
  method.evaluation_seconds = seconds_if(value, "evaluation_seconds");
  method.plan_seconds = seconds_if(value, "plan_seconds");
  method.total_seconds = seconds_if(value, "total_seconds");
  method.validation_accuracy = real_if(value, "validation_accuracy", 1.0);
  method.test_accuracy = real_if(value, "test_accuracy", 1.0);
  method.parameters = whole_if(value, "parameters");
  method.full_parameters = value.at("full_parameters").whole();
  method.flops = whole_if(value, "flops");
  method.inference_images_per_second = real_if(value, "inference_images_per_second", kMostSpeed);
  method.inference_batch = whole_if(value, "inference_batch");
  method.minimum_budget_bytes = bytes(value.at("minimum_budget_bytes"));
  method.seconds_to_bp_accuracy = seconds_if(value, "seconds_to_bp_accuracy");
  method.energy_joules = real_if(value, "energy_joules", kMostSpeed);
  if (const auto weights = value.find("weights")) method.weights = weights->text();
  for (const JsonValue& point : value.at("history").list())
    method.history.push_back({point.at("elapsed_seconds").real(0.0, kMostSeconds),
                              point.at("train_seconds").real(0.0, kMostSeconds),
                              point.at("validation_accuracy").real(0.0, 1.0)});
  if (!value.find("blocks")) return method;
  method.unit_count = units;
  method.cache_bytes = bytes_if(value, "cache_bytes");
  for (const JsonValue& block : value.at("blocks").list())
    method.blocks.push_back(
        read_block(block, method.blocks.empty() ? 0 : method.blocks.back().last_unit, units));
  read_exits(value, units, method);
  method.wanted_exit_accuracy = real_if(value, "wanted_exit_accuracy", 1.0);
  if (const auto stopped = value.find("stopped_early")) method.stopped_early = stopped->truth();
  return method;
}

const Plan* RunRecord::plan_of(const std::string& method) const {
  const auto found = std::ranges::find(plans, method, &RecordedPlan::method);
  return found == plans.end() ? nullptr : &found->plan;
}

std::vector<RunRecord> read_runs(const fs::path& folder) {
  const auto is_folder = [](const fs::path& path) {
    std::error_code status;
    return fs::is_directory(path, status);
  };
  if (!is_folder(folder)) throw DataError(fmt::format("{}: is no run folder", folder.string()));
  const JsonValue document = JsonValue::read(folder / "summary.json");
  const auto runs = document.find("runs");
  if (!runs) return {read_run(folder)};
  std::vector<RunRecord> records;
  for (const JsonValue& run : runs->list()) {
    const std::string name = run.at("folder").text();
    // Such a folder lies in the comparison's own: nothing else is to be read because of a file.
    if (name.empty() || name == ".." || name == "." || fs::path(name).filename() != name)
      run.at("folder").fail(fmt::format("is \"{}\"; it must be the name of a folder", name));
    records.push_back(read_run(folder / name));
  }
  if (records.empty()) runs->fail("is empty");
  return records;
}

}  // namespace nf
