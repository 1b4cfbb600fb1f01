#include "tools/report_command.h"

#include "neuroflux/report/report.h"
#include "tools/options.h"

namespace nf::tools {
namespace {

// As the run's own configuration has them. A plan ignores keys that only training has.
ExperimentOptions options_of(const RunRecord& record) {
  const auto parsed =
      parse_command_line(Command::plan, {"--config", (record.folder / "config.toml").string()});
  return std::get<CommandLine>(parsed).options;
}

report::ReportRun with_steps(RunRecord record) {
  report::ReportRun run{std::move(record), {}, ""};
  try {
    const ExperimentOptions options = options_of(run.record);
    for (const MethodSummary& method : run.record.summary.methods)
      if (method.fits) run.steps.push_back(report::trace_step(run.record, method, options));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    run.without_steps = error.what();
  }
  return run;
}

}  // namespace

std::string report_page(const std::vector<std::filesystem::path>& folders) {
  std::vector<report::ReportRun> runs;
  for (const std::filesystem::path& folder : folders)
    for (RunRecord& record : read_runs(folder)) runs.push_back(with_steps(std::move(record)));
  return report::make_report(runs);
}

}  // namespace nf::tools
