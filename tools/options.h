// From a command line (and a configuration file that it may name) to options for the library.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "neuroflux/comparison.h"
#include "neuroflux/export_exit.h"
#include "tools/kernels_command.h"

namespace nf::tools {

enum class Command { plan, train, compare, eval, export_exit, report, kernels };

const char* to_string(Command command);
/// Throws UsageError with the nearest name.
Command parse_command(const std::string& name);

struct CommandLine {
  Command command = Command::plan;
  ExperimentOptions options;
  /// plan: the data as described by flags; else it is read.
  std::optional<DataShape> data;
  std::vector<std::int64_t> budgets;   ///< plan and compare: over these, in bytes; empty: one
  std::vector<std::uint64_t> seeds;    ///< compare: over these; empty: one
  bool explain = false;                ///< plan
  std::filesystem::path plan_to_save;  ///< plan
  std::filesystem::path weights;       ///< eval
  bool overwrite = false;              ///< a run folder that holds another run
  std::filesystem::path resumed;       ///< train, compare: the folder of a run to go on with
  std::filesystem::path exported_run;  ///< export: a run folder
  ExitWanted wanted_exit;              ///< export
  std::filesystem::path exit_file = "exit.safetensors";  ///< export
  std::vector<std::filesystem::path> reported;           ///< report: run folders
  std::filesystem::path report_file = "report.html";     ///< report
  KernelsOptions kernels;
  bool json = false;
};

struct HelpText {
  std::string text;
};

/// `arguments` are those after the command. Throws UsageError, on one line, for unknown flags or
/// keys (with the nearest name), values that break their rule, and files that can't be read.
std::variant<CommandLine, HelpText> parse_command_line(Command command,
                                                       const std::vector<std::string>& arguments);

/// Help on the program as a whole.
std::string program_help();

}  // namespace nf::tools
