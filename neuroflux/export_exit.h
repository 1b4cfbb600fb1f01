// Another exit of a finished run than the one that it delivered.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "neuroflux/summary.h"

namespace nf {

/// The file in a run folder that holds all exits of a method which trains by units: the trained
/// units and their classifiers. As a saved net it is the last exit.
std::string exits_file(const std::string& method);

struct ExitWanted {
  std::string method = "neuroflux";
  std::int64_t unit = 0;  ///< counted from 1; 0: by accuracy
  /// Without a unit: the exit of the fewest parameters with this validation accuracy (a fraction).
  double accuracy = 0.0;
};

struct ExportedExit {
  std::string model;
  ExitSummary exit;
  std::int64_t unit_count = 0;
  std::int64_t full_parameters = 0;
  std::optional<double> validation_accuracy;  ///< none without validation images
  std::optional<double> test_accuracy;        ///< known of the exit alone that the run delivered
};

/// Writes the exit as a saved net; the run folder stays as it is. Throws Error where the file lies
/// in it, the folder holds several runs, the method was not finished or no exit is as wanted,
/// DataError naming the file that is missing or damaged.
ExportedExit export_exit(const std::filesystem::path& run_folder, const ExitWanted& wanted,
                         const std::filesystem::path& file);

}  // namespace nf
