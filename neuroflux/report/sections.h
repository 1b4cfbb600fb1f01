// The parts of a report, each HTML of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "neuroflux/report/report.h"
#include "neuroflux/report/svg_plot.h"

namespace nf::report {

/// Runs under the same conditions but for methods, budget and seed.
struct Group {
  std::vector<const ReportRun*> runs;

  std::vector<std::int64_t> budgets() const;  ///< in their order, each once
  std::vector<std::string> methods() const;
  std::vector<const ReportRun*> under(std::int64_t budget) const;
};

/// Null where the run has no such method.
const MethodSummary* method_of(const ReportRun& run, const std::string& name);
/// The same colour for a method everywhere.
std::string colour_of(const std::string& method);
/// "bp does not fit 8.0 MiB: …", "local diverged: …"; empty where the method was finished.
std::string trouble(const MethodSummary& method, std::int64_t budget);
std::string paragraph(const std::string& text);

struct Trade {
  double cost = 0.0, gain = 0.0;
};
/// Those that no other beats: indices of the points with more gain than every cheaper one, in
/// order of their cost.
std::vector<std::size_t> pareto_front(const std::vector<Trade>& points);

std::string methods_section(const Group& group);
std::string accuracy_section(const Group& group);
std::string exits_section(const Group& group);
std::string memory_section(const Group& group);
std::string plan_section(const Group& group);
std::string time_section(const Group& group);

/// The plan of a method in a run of this seed as units in blocks.
std::string draw_plan(const Plan& plan, const MethodSummary& method, std::int64_t budget,
                      std::uint64_t seed);

}  // namespace nf::report
