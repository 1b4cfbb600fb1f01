#include "neuroflux/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "engine/error.h"
#include "engine/text.h"
#include "neuroflux/method.h"
#include "neuroflux/report/sections.h"
#include "neuroflux/report/style.h"

namespace nf::report {
namespace {

constexpr int kMethodColours = 6;  // of the style sheet

// What tells apart runs that must not be averaged: everything but methods, budget and seed.
std::string conditions_of(const RunRecord& record) {
  const Summary& summary = record.summary;
  std::string text = fmt::format("{} on {}, {} threads, {}/{}/{} images\n", summary.model,
                                 summary.device, summary.threads, summary.train_images,
                                 summary.validation_images, summary.test_images);
  std::istringstream lines(record.config);
  for (std::string line; std::getline(lines, line);) {
    const std::string key = line.substr(0, line.find_first_of(" ="));
    if (key != "seed" && key != "budget" && key != "method" && key != "methods")
      text += line + '\n';
  }
  return text;
}

std::vector<Group> groups_of(const std::vector<ReportRun>& runs) {
  std::vector<Group> groups;
  std::vector<std::string> conditions;
  for (const ReportRun& run : runs) {
    const std::string own = conditions_of(run.record);
    const auto at = std::ranges::find(conditions, own) - conditions.begin();
    if (static_cast<std::size_t>(at) == groups.size()) {
      conditions.push_back(own);
      groups.emplace_back();
    }
    groups[static_cast<std::size_t>(at)].runs.push_back(&run);
  }
  return groups;
}

template <typename Values, typename Text>
std::string joined(const Values& values, const Text& text) {
  std::string all;
  for (const auto& value : values) all += (all.empty() ? "" : ", ") + text(value);
  return all;
}

std::string entry(const char* name, const std::string& text) {
  return fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, escape_markup(text));
}

std::string conditions_list(const Group& group) {
  const RunRecord& first = group.runs.front()->record;
  const Summary& summary = first.summary;
  std::vector<std::uint64_t> seeds;
  for (const ReportRun* run : group.runs)
    if (std::ranges::count(seeds, run->record.summary.seed) == 0)
      seeds.push_back(run->record.summary.seed);
  std::string html =
      "<dl>\n" + entry("net", fmt::format("{} for images {}, {} classes", summary.model,
                                          summary.input.str(), summary.classes));
  html +=
      entry("device", fmt::format("{}, {} threads{}", summary.device, summary.threads,
                                  summary.context_bytes ? "; its context takes " +
                                                              format_bytes(*summary.context_bytes) +
                                                              " beside the budget"
                                                        : ""));
  html += entry("budgets", joined(group.budgets(), format_bytes));
  html += entry("seeds", joined(seeds, [](std::uint64_t seed) { return std::to_string(seed); }));
  html += entry("images",
                fmt::format("{} to train on, {} for validation, {} for the test",
                            summary.train_images, summary.validation_images, summary.test_images));
  html += entry("runs", std::to_string(group.runs.size())) + "</dl>\n";
  std::string folders;
  for (const ReportRun* run : group.runs) folders += run->record.folder.string() + '\n';
  html += "<details><summary>Run folders</summary><pre>" + escape_markup(folders) +
          "</pre></details>\n";
  html +=
      "<details><summary>Configuration of the first run, to be used again with "
      "<code>neuroflux compare --config</code></summary><pre>" +
      escape_markup(first.config) + "</pre></details>\n";
  return html;
}

}  // namespace

std::vector<std::int64_t> Group::budgets() const {
  std::vector<std::int64_t> result;
  for (const ReportRun* run : runs)
    if (std::ranges::count(result, run->record.summary.budget_bytes) == 0)
      result.push_back(run->record.summary.budget_bytes);
  return result;
}

std::vector<std::string> Group::methods() const {
  std::vector<std::string> result;
  for (const ReportRun* run : runs)
    for (const MethodSummary& method : run->record.summary.methods)
      if (std::ranges::count(result, method.name) == 0) result.push_back(method.name);
  return result;
}

std::vector<const ReportRun*> Group::under(std::int64_t budget) const {
  std::vector<const ReportRun*> result;
  for (const ReportRun* run : runs)
    if (run->record.summary.budget_bytes == budget) result.push_back(run);
  return result;
}

const MethodSummary* method_of(const ReportRun& run, const std::string& name) {
  const std::vector<MethodSummary>& methods = run.record.summary.methods;
  const auto found = std::ranges::find(methods, name, &MethodSummary::name);
  return found == methods.end() ? nullptr : &*found;
}

std::string colour_of(const std::string& method) {
  const std::vector<std::string>& known = method_names();
  return fmt::format("c{}", (std::ranges::find(known, method) - known.begin()) % kMethodColours);
}

std::string paragraph(const std::string& text) {
  return fmt::format("<p>{}</p>\n", escape_markup(text));
}

std::string make_report(const std::vector<ReportRun>& runs) {
  NF_CHECK(!runs.empty(), "report: there must be one run at least");
  const std::vector<Group> groups = groups_of(runs);
  std::string rules;
  for (const auto& [family, count] : {std::pair("c", kMethodColours), {"t", 4}, {"m", 8}})
    for (int i = 0; i < count; ++i)
      rules += fmt::format(
          ".fill.{0}{1}, .swatch.{0}{1} {{ fill: var(--{0}{1}); background: var(--{0}{1}); }}\n"
          ".line.{0}{1}, .ring.{0}{1} {{ stroke: var(--{0}{1}); }}\n",
          family, i);
  rules += ".line.ink { stroke: var(--ink); } .swatch.ink { background: var(--ink); }\n";
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>NeuroFlux report</title>\n<link rel=\"icon\" href=\"data:,\">\n"
      "<style>{}{}</style>\n</head>\n<body>\n<h1>NeuroFlux report</h1>\n",
      kStyle, rules);
  html += paragraph(
      fmt::format("{} run{}{}.", runs.size(), runs.size() == 1 ? "" : "s",
                  groups.size() > 1 ? fmt::format(" under {} conditions", groups.size()) : ""));
  for (const Group& group : groups) {
    const Summary& summary = group.runs.front()->record.summary;
    html += fmt::format("<h2>{} on {}</h2>\n", escape_markup(summary.model),
                        escape_markup(summary.device));
    html += conditions_list(group) + methods_section(group) + accuracy_section(group) +
            exits_section(group) + memory_section(group) + plan_section(group) +
            time_section(group);
  }
  return html + "</body>\n</html>\n";
}

}  // namespace nf::report
