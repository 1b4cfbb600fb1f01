// The table of methods, and what went wrong in words.
#include <fmt/format.h>

#include <algorithm>

#include "engine/text.h"
#include "neuroflux/comparison.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

constexpr const char* kUnknown = "–";  // as figures.h has it

std::string cells(const char* element, const std::vector<std::string>& texts) {
  std::string html = "<tr>";
  for (const std::string& text : texts)
    html += fmt::format("<{0}>{1}</{0}>", element, escape_markup(text));
  return html + "</tr>\n";
}

std::string bytes_or_dash(const std::optional<std::int64_t>& bytes) {
  return bytes ? format_bytes(*bytes) : std::string(kUnknown);
}

// "64", with micro-batches "64 by 8", or of several blocks "64 × 5", "32–64".
std::string batches(const MethodSummary& method) {
  const std::vector<std::int64_t>& sizes = method.batches;
  if (method.micro_batch && sizes.size() == 1)
    return fmt::format("{} by {}", sizes.front(), *method.micro_batch);
  if (sizes.empty()) return std::string(kUnknown);
  const auto [least, most] = std::ranges::minmax(sizes);
  if (least != most) return fmt::format("{}–{}", least, most);
  return sizes.size() == 1 ? std::to_string(least) : fmt::format("{} × {}", least, sizes.size());
}

const MethodSummary& example_of(const Group& group, const MethodSpread& spread) {
  const MethodSummary* found = nullptr;
  for (const ReportRun* run : group.under(spread.budget_bytes)) {
    const MethodSummary* method = method_of(*run, spread.method);
    if (method != nullptr && (found == nullptr || !method->batches.empty())) found = method;
  }
  return *found;
}

std::vector<std::string> begin_row(const MethodSpread& spread) {
  return {format_bytes(spread.budget_bytes), spread.method};
}

// What it took.
std::vector<std::string> cost_row(const Group& group, const MethodSpread& spread) {
  std::vector<std::string> row = begin_row(spread);
  const std::int64_t finished = spread.total_seconds ? spread.total_seconds->count : 0;
  for (std::string& text : std::vector<std::string>{
           spread.fits == 0 ? "does not fit" : fmt::format("{} of {}", finished, spread.seeds),
           batches(example_of(group, spread)), bytes_or_dash(spread.predicted_peak_bytes),
           bytes_or_dash(spread.measured_peak_bytes), seconds_text(spread.train_seconds),
           seconds_text(spread.total_seconds), seconds_text(spread.seconds_to_bp_accuracy),
           bytes_text(spread.cache_bytes), count_text(spread.energy_joules)})
    row.push_back(std::move(text));
  return row;
}

// What came out of it.
std::vector<std::string> result_row(const MethodSpread& spread) {
  std::vector<std::string> row = begin_row(spread);
  const bool delivered = spread.parameters && spread.parameters->mean > 0.0;
  const auto full = static_cast<double>(spread.full_parameters);
  for (std::string& text : std::vector<std::string>{
           percent_text(spread.validation_accuracy), percent_text(spread.test_accuracy),
           count_text(spread.parameters), format_count(full),
           delivered ? fmt::format("{:.1f} ×", full / spread.parameters->mean)
                     : std::string(kUnknown),
           count_text(spread.flops), count_text(spread.images_per_second)})
    row.push_back(std::move(text));
  return row;
}

const MethodSummary* bp_of(const Summary& summary) {
  const auto bp = std::ranges::find_if(
      summary.methods, [](const MethodSummary& method) { return method.name == "bp"; });
  return bp == summary.methods.end() ? nullptr : &*bp;
}

// Methods that were run apart from bp are held against the bp of the same budget and seed.
void compare_across(std::vector<ComparisonRun>& runs) {
  for (ComparisonRun& run : runs) {
    if (bp_of(run.summary) != nullptr) continue;
    for (const ComparisonRun& other : runs) {
      const MethodSummary* bp = bp_of(other.summary);
      const bool same = other.summary.seed == run.summary.seed &&
                        other.summary.budget_bytes == run.summary.budget_bytes;
      if (!same || bp == nullptr || !bp->validation_accuracy) continue;
      compare_with_bp(run.summary, *bp);
      break;
    }
  }
}

using Rows = std::vector<std::vector<std::string>>;  // the first one is the head

// Columns of which nothing is known are left out.
std::string table(Rows rows) {
  for (std::size_t column = rows.front().size(); column-- > 0;) {
    const auto unknown = [&](const auto& row) { return row[column] == kUnknown; };
    if (rows.size() < 2 || !std::all_of(rows.begin() + 1, rows.end(), unknown)) continue;
    for (auto& row : rows) row.erase(row.begin() + static_cast<std::ptrdiff_t>(column));
  }
  std::string html =
      "<div class=\"wide\"><table>\n<thead>" + cells("th", rows.front()) + "</thead>\n<tbody>\n";
  for (std::size_t i = 1; i < rows.size(); ++i) html += cells("td", rows[i]);
  return html + "</tbody></table></div>\n";
}

}  // namespace

std::string trouble(const MethodSummary& method, std::int64_t budget) {
  if (!method.fits)
    return fmt::format("{} does not fit {}: it needs at least {}.", method.name,
                       format_bytes(budget), format_bytes_up(method.minimum_budget_bytes));
  if (method.diverged) return fmt::format("{} diverged: {}", method.name, method.error);
  if (!method.error.empty())
    return fmt::format("{} was not finished: {}", method.name, method.error);
  return "";
}

std::string methods_section(const Group& group) {
  std::vector<ComparisonRun> runs;
  for (const ReportRun* run : group.runs) runs.push_back({run->record.folder, run->record.summary});
  compare_across(runs);
  Rows costs{{"budget", "method", "finished seeds", "batch", "predicted peak", "measured peak",
              "training", "total", "to bp's accuracy", "cache", "energy in J"}};
  Rows results{{"budget", "method", "validation accuracy", "test accuracy", "parameters",
                "of the whole net", "fewer", "FLOPs an image", "images a second"}};
  for (const MethodSpread& spread : summarise(runs)) {
    if (spread.seeds == 0) continue;
    costs.push_back(cost_row(group, spread));
    if (spread.fits > 0) results.push_back(result_row(spread));
  }
  std::string html = "<h3>Methods</h3>\n<h4>What they took</h4>\n" + table(costs);
  if (results.size() > 1) html += "<h4>What came out</h4>\n" + table(results);
  html += paragraph(
      "Mean ± standard deviation over seeds, where they differ; peaks are the largest. “To bp's "
      "accuracy” is the time until an exit first had the final validation accuracy of bp, of the "
      "same budget and seed in another run where the run has no bp.");
  std::vector<std::string> said;
  for (const ReportRun* run : group.runs)
    for (const MethodSummary& method : run->record.summary.methods) {
      const std::string what = trouble(method, run->record.summary.budget_bytes);
      if (what.empty()) continue;
      const std::string text =
          method.fits ? fmt::format("Seed {}: {}", run->record.summary.seed, what) : what;
      if (std::ranges::count(said, text) == 0) said.push_back(text);
    }
  for (const std::string& text : said) html += paragraph(text);
  return html;
}

}  // namespace nf::report
