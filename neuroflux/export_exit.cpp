#include "neuroflux/export_exit.h"

#include <algorithm>

#include "engine/error.h"
#include "neuroflux/run_record.h"
#include "neuroflux/saved_net.h"

namespace fs = std::filesystem;

namespace nf {
namespace {

const MethodSummary& finished_method(const RunRecord& run, const std::string& name) {
  const std::vector<MethodSummary>& methods = run.summary.methods;
  const auto found = std::find_if(methods.begin(), methods.end(),
                                  [&](const MethodSummary& method) { return method.name == name; });
  NF_CHECK(found != methods.end(), "export: {} has no method {}", run.folder.string(), name);
  NF_CHECK(found->fits && found->error.empty() && !found->exits.empty(),
           "export: {} in {} has no exits, since it {}", name, run.folder.string(),
           found->fits ? "was not finished" : "does not fit its budget");
  return *found;
}

const ExitSummary& wanted_exit(const MethodSummary& method, const ExitWanted& wanted) {
  const ExitSummary* chosen = nullptr;
  double best = 0.0;
  for (const ExitSummary& exit : method.exits) {
    best = std::max(best, exit.validation_accuracy);
    const bool fits =
        wanted.unit > 0 ? exit.unit == wanted.unit : exit.validation_accuracy >= wanted.accuracy;
    if (fits && (chosen == nullptr || exit.parameters < chosen->parameters)) chosen = &exit;
  }
  if (wanted.unit > 0)
    NF_CHECK(chosen != nullptr, "export: {} has no exit {}, it has {} to {}", method.name,
             wanted.unit, method.exits.front().unit, method.exits.back().unit);
  NF_CHECK(chosen != nullptr,
           "export: no exit of {} has a validation accuracy of {}; the best has {:.4f}",
           method.name, wanted.accuracy, best);
  return *chosen;
}

}  // namespace

std::string exits_file(const std::string& method) { return method + "-exits.safetensors"; }

ExportedExit export_exit(const fs::path& run_folder, const ExitWanted& wanted,
                         const fs::path& file) {
  const std::vector<RunRecord> runs = read_runs(run_folder);
  NF_CHECK(runs.size() == 1, "export: {} holds {} runs; name the folder of one, as {}",
           run_folder.string(), runs.size(), runs.front().folder.string());
  const RunRecord& run = runs.front();
  const MethodSummary& method = finished_method(run, wanted.method);
  const ExitSummary& exit = wanted_exit(method, wanted);
  const fs::path all = run.folder / exits_file(method.name);
  if (!fs::exists(all))
    fail_data("{}: is not there; runs of earlier versions left the delivered exit alone",
              all.string());
  std::error_code status;
  const fs::path target = fs::weakly_canonical(file, status);
  NF_CHECK(status || target.parent_path() != fs::weakly_canonical(run.folder),
           "export: {} lies in the run folder, which stays as it is", file.string());
  LoadedNet exits(all);
  SavedNet saved = exits.description();
  saved.exit_unit = exit.unit;
  saved.write(file, exits.exit_weights(exit.unit - 1));
  ExportedExit exported{run.summary.model, exit, method.unit_count, method.full_parameters, {}, {}};
  if (run.summary.validation_images > 0) exported.validation_accuracy = exit.validation_accuracy;
  if (method.exit_unit == exit.unit) exported.test_accuracy = method.test_accuracy;
  return exported;
}

}  // namespace nf
