#include "tools/run_folder.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/atomic_file.h"
#include "neuroflux/experiment.h"
#include "neuroflux/export_exit.h"
#include "neuroflux/json_value.h"
#include "tools/errors.h"

namespace fs = std::filesystem;

namespace nf::tools {
namespace {

constexpr const char* kStartedRun = "run.json";

std::string time_stamp() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y%m%d-%H%M%S", &local);
  return text.data();
}

/// Whether it was made; false: it was there.
bool make_folder(const fs::path& path) {
  std::error_code status;
  const bool made = fs::create_directory(path, status);
  NF_CHECK(!status, "run folder: can't make {}: {}", path.string(), status.message());
  return made;
}

void make_parents(const fs::path& path) {
  std::error_code status;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), status);
  NF_CHECK(!status, "run folder: can't make {}: {}", path.parent_path().string(), status.message());
}

std::vector<std::string> names_in_a_run() {
  std::vector<std::string> names{
      "config.toml", "plan.json", "metrics.jsonl", "summary.json", "summary.csv",
      "summary.md",  "cache",     "run.json",      "times.json",   "checkpoint.safetensors"};
  for (const std::string& method : method_names()) {
    names.push_back(method + ".safetensors");
    names.push_back(exits_file(method));
  }
  return names;
}

// Finished or not; not those of a comparison within it.
bool holds_one_run(const fs::path& folder) {
  const std::vector<std::string> names = names_in_a_run();
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return fs::exists(folder / name); });
}

// BUDGET-seedN, each a run of a comparison.
std::vector<fs::path> runs_within(const fs::path& folder) {
  std::vector<fs::path> runs;
  std::error_code status;
  for (const auto& entry : fs::directory_iterator(folder, status))
    if (entry.path().filename().string().find("-seed") != std::string::npos &&
        holds_one_run(entry.path()))
      runs.push_back(entry.path());
  return runs;
}

bool holds_run(const fs::path& folder) {
  return holds_one_run(folder) || !runs_within(folder).empty();
}

void remove_run(const fs::path& folder) {
  for (const fs::path& run : runs_within(folder)) {
    const RunLock lock(run);
    remove_run(run);
    std::error_code not_empty;
    fs::remove(run, not_empty);
  }
  for (const std::string& name : names_in_a_run()) {
    std::error_code status;
    fs::remove_all(folder / name, status);
    NF_CHECK(!status, "run folder: can't replace {}: {}", (folder / name).string(),
             status.message());
  }
}

}  // namespace

RunFolder RunFolder::fresh(const std::string& name) {
  const std::string base = (fs::path("runs") / fmt::format("{}-{}", name, time_stamp())).string();
  make_parents(base);
  fs::path path = base;
  for (int number = 2; !make_folder(path); ++number) path = fmt::format("{}-{}", base, number);
  return {path, true};
}

RunFolder RunFolder::given(const fs::path& path, bool overwrite) {
  // "runs/a/" has an empty last part: the folder itself would pass for its own parent.
  const fs::path folder = path.has_filename() ? path : path.parent_path();
  make_parents(folder);
  const bool made = make_folder(folder);
  NF_CHECK(fs::is_directory(folder), "run folder: {} is a file", folder.string());
  RunFolder taken(folder, made);
  if (holds_run(folder)) {
    NF_CHECK(overwrite, "run folder: {} holds a run already; name another or add --overwrite",
             folder.string());
    remove_run(folder);
  }
  return taken;
}

void write_started_run(const fs::path& folder, const StartedRun& run) {
  const nlohmann::json document{{"command", run.command},
                                {"data", run.data},
                                {"cache_folder", run.cache_folder},
                                {"budgets", run.budgets},
                                {"seeds", run.seeds}};
  replace_file(folder / kStartedRun, document.dump(2) + '\n');
}

StartedRun read_started_run(const fs::path& folder) {
  NF_CHECK(fs::exists(folder / kStartedRun),
           "--resume: {} holds no run that can go on (there is no {})", folder.string(),
           kStartedRun);
  const JsonValue document = JsonValue::read(folder / kStartedRun);
  StartedRun run{document.at("command").text(),
                 document.at("data").text(),
                 document.at("cache_folder").text(),
                 {},
                 {}};
  for (const JsonValue& budget : document.at("budgets").list())
    run.budgets.push_back(budget.whole());
  for (const JsonValue& seed : document.at("seeds").list()) run.seeds.push_back(seed.natural());
  return run;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)),
      made_(std::exchange(other.made_, false)),
      lock_(std::move(other.lock_)) {}

RunFolder::RunFolder(const fs::path& path, bool made)
    : path_(path), made_(made), lock_(std::make_shared<const RunLock>(path)) {}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (made_) fs::remove(path_, ignored);  // refuses a folder that holds anything
}

}  // namespace nf::tools
