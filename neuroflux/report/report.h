// One HTML page about runs: accuracy over time, exits, memory of a step, plans, where time went.
#pragma once

#include <string>
#include <vector>

#include "neuroflux/report/step_memory.h"
#include "neuroflux/run_record.h"

namespace nf::report {

struct ReportRun {
  RunRecord record;
  std::vector<StepMemory> steps;  ///< of each method that fits
  std::string without_steps;      ///< why there are none; empty: there are
};

/// A whole page that needs no other file and no network: style sheet and pictures are in it, light
/// or dark as the reader's system is. Runs that differ in nothing but methods, budget and seed are
/// shown together; others get a part of their own. At least one run.
std::string make_report(const std::vector<ReportRun>& runs);

}  // namespace nf::report
