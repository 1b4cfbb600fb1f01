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

std::string percent2(double fraction) { return format_percent(fraction, 2); }

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

std::vector<std::string> row_of(const Group& group, const MethodSpread& spread) {
  const MethodSummary& example = example_of(group, spread);
  const auto count = [](double value) { return format_count(value); };
  const auto bytes = [](double value) { return format_bytes(std::llround(value)); };
  const std::string fewer = spread.parameters && spread.parameters->mean > 0.0
                                ? fmt::format("{} of {}", count(spread.parameters->mean),
                                              count(static_cast<double>(spread.full_parameters)))
                                : "–";
  return {format_bytes(spread.budget_bytes),
          spread.method,
          fmt::format("{} of {}",
                      spread.test_accuracy || spread.total_seconds
                          ? std::max(spread.total_seconds->count, std::int64_t{0})
                          : 0,
                      spread.seeds),
          batches(example.batches),
          bytes_or_dash(spread.predicted_peak_bytes),
          bytes_or_dash(spread.measured_peak_bytes),
          format_spread(spread.train_seconds, format_seconds),
          format_spread(spread.total_seconds, format_seconds),
          format_spread(spread.seconds_to_bp_accuracy, format_seconds),
          format_spread(spread.validation_accuracy, percent2),
          format_spread(spread.test_accuracy, percent2),
          fewer,
          format_spread(spread.flops, count),
          format_spread(spread.images_per_second, count),
          format_spread(spread.cache_bytes, bytes),
          format_spread(spread.energy_joules, count)};
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
  std::vector<std::string> head{"budget",           "method",        "seeds finished", "batch",
                                "predicted peak",   "measured peak", "training",       "total",
                                "to bp's accuracy", "validation",    "test",           "parameters",
                                "FLOPs / image",    "images / s",    "cache",          "energy, J"};
  std::string html = "<h3>Methods</h3>\n<div class=\"wide\"><table>\n<thead>" + cells("th", head) +
                     "</thead>\n<tbody>\n";
  for (const MethodSpread& spread : summarise(runs))
    if (spread.seeds > 0) html += cells("td", row_of(group, spread));
  html += "</tbody></table></div>\n";
  html += paragraph(
      "Mean ± standard deviation over seeds; peaks are the largest. “To bp's accuracy” is the time "
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
