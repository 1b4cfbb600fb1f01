// The table of methods, and what went wrong in words.
#include <fmt/format.h>

#include <algorithm>

#include "engine/text.h"
#include "neuroflux/comparison.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

std::string cells(const char* element, const std::vector<std::string>& texts) {
  std::string html = "<tr>";
  for (const std::string& text : texts)
    html += fmt::format("<{0}>{1}</{0}>", element, escape_markup(text));
  return html + "</tr>\n";
}

std::string bytes_or_dash(const std::optional<std::int64_t>& bytes) {
  return bytes ? format_bytes(*bytes) : "–";
}

// "64", or of several blocks "64 × 5", "32–64".
std::string batches(const std::vector<std::int64_t>& sizes) {
  if (sizes.empty()) return "–";
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
           fmt::format("{} of {}", finished, spread.seeds),
           batches(example_of(group, spread).batches), bytes_or_dash(spread.predicted_peak_bytes),
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
           delivered ? fmt::format("{:.1f} ×", full / spread.parameters->mean) : "–",
           count_text(spread.flops), count_text(spread.images_per_second)})
    row.push_back(std::move(text));
  return row;
}

std::string table(const std::vector<std::string>& head, const std::string& rows) {
  return "<div class=\"wide\"><table>\n<thead>" + cells("th", head) + "</thead>\n<tbody>\n" + rows +
         "</tbody></table></div>\n";
}

}  // namespace

std::string trouble(const MethodSummary& method, std::int64_t budget) {
  if (!method.fits)
    return fmt::format("{} does not fit {}: it needs at least {}.", method.name,
                       format_bytes(budget), format_bytes_up(method.minimum_budget_bytes));
  if (!method.error.empty())
    return fmt::format("{} was not finished: {}", method.name, method.error);
  return "";
}

std::string methods_section(const Group& group) {
  std::vector<ComparisonRun> runs;
  for (const ReportRun* run : group.runs) runs.push_back({run->record.folder, run->record.summary});
  std::string costs, results;
  for (const MethodSpread& spread : summarise(runs)) {
    if (spread.seeds == 0) continue;
    costs += cells("td", cost_row(group, spread));
    results += cells("td", result_row(spread));
  }
  std::string html = "<h3>Methods</h3>\n<h4>What they took</h4>\n";
  html += table({"budget", "method", "finished seeds", "batch", "predicted peak", "measured peak",
                 "training", "total", "to bp's accuracy", "cache", "energy in J"},
                costs);
  html += "<h4>What came out</h4>\n";
  html += table({"budget", "method", "validation accuracy", "test accuracy", "parameters",
                 "of the whole net", "fewer", "FLOPs an image", "images a second"},
                results);
  html += paragraph(
      "Mean ± standard deviation over seeds, where they differ; peaks are the largest. “To bp's "
      "accuracy” is the time "
      "until an exit first had the final validation accuracy of bp.");
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
