// Accuracy against time, and exits against what they cost.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "engine/text.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

constexpr int kDashes = 4;  // patterns of the style sheet

std::string percent(double fraction) { return format_percent(fraction, 0); }

std::string run_name(const Summary& summary) {
  return fmt::format("{}, seed {}", format_bytes(summary.budget_bytes), summary.seed);
}

// "whole 24.0 MiB, dashed 32.0 MiB".
std::string dash_caption(const std::vector<std::int64_t>& budgets) {
  constexpr std::array<const char*, kDashes> names{"whole", "dashed", "dotted", "dash and dot"};
  if (budgets.size() < 2) return "";
  std::string text;
  for (std::size_t i = 0; i < budgets.size(); ++i)
    text += fmt::format("{}{} {}", text.empty() ? " Lines by budget: " : ", ",
                        names[i % names.size()], format_bytes(budgets[i]));
  return text + ".";
}

bool any_history(const std::vector<const ReportRun*>& runs) {
  const auto has_history = [](const MethodSummary& method) { return !method.history.empty(); };
  return std::ranges::any_of(runs, [&](const ReportRun* run) {
    return std::ranges::any_of(run->record.summary.methods, has_history);
  });
}

// What an exit's accuracy is set against.
struct Measure {
  std::string label;
  std::optional<double> (*of_exit)(const ExitSummary&);
  std::optional<double> (*of_net)(const MethodSummary&);
  bool more_is_better = false;
};

const std::array kMeasures{
    Measure{"parameters",
            [](const ExitSummary& exit) { return std::optional(double(exit.parameters)); },
            [](const MethodSummary& net) { return std::optional<double>(net.parameters); }},
    Measure{"FLOPs for one image",
            [](const ExitSummary& exit) { return std::optional(double(exit.flops)); },
            [](const MethodSummary& net) { return std::optional<double>(net.flops); }},
    Measure{"images inferred per second",
            [](const ExitSummary& exit) { return exit.inference_images_per_second; },
            [](const MethodSummary& net) { return net.inference_images_per_second; }, true}};

struct ExitPoint {
  double measure = 0.0, accuracy = 0.0;
};

class ExitPlot {
 public:
  ExitPlot(const Group& group, std::int64_t budget, const Measure& measure)
      : group_(group), budget_(budget), measure_(measure) {}

  std::string draw() {
    for (const std::string& name : group_.methods()) add(name);
    XyPlot plot{.text = {fmt::format("Accuracy against {}", measure_.label), ""},
                .x = {measure_.label, format_count, logarithmic()},
                .y = {"validation accuracy", percent},
                .width = 508.0};
    for (const Series& series : series_)
      if (!series.line.empty() || !series.marks.empty()) plot.series.push_back(series);
    return report::draw(plot);
  }

 private:
  bool logarithmic() const {
    std::vector<double> costs;
    for (const Series& series : series_)
      for (const Mark& mark : series.marks) costs.push_back(mark.x);
    if (costs.empty()) return false;
    const auto [least, most] = std::ranges::minmax(costs);
    return least > 0.0 && most > 4.0 * least;
  }

  void add(const std::string& name) {
    // By unit: where seeds differ in what an exit costs, it is the mean too.
    std::map<std::int64_t, std::vector<ExitPoint>> exits;
    Series faint{.name = name, .colour = colour_of(name)};
    Series whole = faint;
    whole.square = true;
    for (const ReportRun* run : group_.under(budget_)) {
      const MethodSummary* method = method_of(*run, name);
      if (method == nullptr) continue;
      const std::string seed = fmt::format("seed {}", run->record.summary.seed);
      for (const ExitSummary& exit : method->exits) {
        const auto x = measure_.of_exit(exit);
        if (!x) continue;
        exits[exit.unit].push_back({*x, exit.validation_accuracy});
        const bool chosen = method->exit_unit == exit.unit;
        faint.marks.push_back(
            {.x = *x,
             .y = exit.validation_accuracy,
             .tooltip = tooltip(name, exit.unit, seed, *x, exit.validation_accuracy, chosen),
             .label = "",
             .ringed = chosen,
             .faint = true});
      }
      const auto x = measure_.of_net(*method);
      if (method->exits.empty() && x && method->validation_accuracy)
        whole.marks.push_back(
            {.x = *x,
             .y = *method->validation_accuracy,
             .tooltip = tooltip(name, 0, seed, *x, *method->validation_accuracy, false),
             .label = whole.marks.empty() ? name : ""});
    }
    series_.push_back(whole);
    series_.push_back(front(name, exits));
    series_.push_back(faint);
  }

  std::string tooltip(const std::string& name, std::int64_t unit, const std::string& seed,
                      double measure, double accuracy, bool chosen) const {
    return fmt::format("{} {}, {}: {} {}, {}{}", name,
                       unit == 0 ? "whole net" : fmt::format("exit {}", unit), seed,
                       format_count(measure), measure_.label, format_percent(accuracy, 2),
                       chosen ? "; delivered" : "");
  }

  // Means over seeds, and the line through those that none beats.
  Series front(const std::string& name,
               const std::map<std::int64_t, std::vector<ExitPoint>>& exits) const {
    Series result{.name = name, .colour = colour_of(name), .steps = true};
    std::vector<Trade> means;
    for (const auto& [unit, points] : exits) {
      ExitPoint mean;
      for (const ExitPoint& point : points) {
        mean.measure += point.measure / static_cast<double>(points.size());
        mean.accuracy += point.accuracy / static_cast<double>(points.size());
      }
      result.marks.push_back(
          {.x = mean.measure,
           .y = mean.accuracy,
           .tooltip = tooltip(name, unit, fmt::format("mean of {}", points.size()), mean.measure,
                              mean.accuracy, false),
           .label = std::to_string(unit)});
      means.push_back({measure_.more_is_better ? -mean.measure : mean.measure, mean.accuracy});
    }
    for (const std::size_t i : pareto_front(means))
      result.line.push_back({result.marks[i].x, result.marks[i].y});
    return result;
  }

  const Group& group_;
  std::int64_t budget_;
  const Measure& measure_;
  std::vector<Series> series_;
};

}  // namespace

std::vector<std::size_t> pareto_front(const std::vector<Trade>& points) {
  std::vector<std::size_t> order(points.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return points[a].cost != points[b].cost ? points[a].cost < points[b].cost
                                            : points[a].gain > points[b].gain;
  });
  std::vector<std::size_t> front;
  for (const std::size_t i : order)
    if (front.empty() || points[i].gain > points[front.back()].gain) front.push_back(i);
  return front;
}

std::string accuracy_section(const Group& group) {
  std::vector<std::int64_t> budgets = group.budgets();
  std::erase_if(budgets, [&](std::int64_t budget) { return !any_history(group.under(budget)); });
  XyPlot plot{.text = {"",
                       "Each line is one run; a point is the end of an epoch, its accuracy that "
                       "of the best exit of that epoch. Time is all of a method's: planning, "
                       "training, cache and evaluation." +
                           dash_caption(budgets)},
              .x = {.label = "elapsed time", .format = format_seconds, .from_zero = true},
              .y = {.label = "validation accuracy", .format = percent},
              .width = 1040.0,
              .height = 400.0};
  for (const std::string& name : group.methods())
    for (const ReportRun* run : group.runs) {
      const Summary& summary = run->record.summary;
      const MethodSummary* method = method_of(*run, name);
      if (method == nullptr || method->history.empty()) continue;
      const auto budget = std::ranges::find(budgets, summary.budget_bytes) - budgets.begin();
      Series series{.name = name,
                    .colour = colour_of(name),
                    .dashes = static_cast<int>(budget % kDashes),
                    .tooltip = fmt::format("{}, {}", name, run_name(summary))};
      for (const AccuracyPoint& point : method->history) {
        series.line.push_back({point.elapsed_seconds, point.validation_accuracy});
        series.marks.push_back({.x = point.elapsed_seconds,
                                .y = point.validation_accuracy,
                                .tooltip = fmt::format("{}: {} after {}", series.tooltip,
                                                       format_percent(point.validation_accuracy, 2),
                                                       format_seconds(point.elapsed_seconds)),
                                .label = "",
                                .faint = true});
      }
      plot.series.push_back(std::move(series));
    }
  return "<h3>Accuracy over time</h3>\n" + draw(plot);
}

std::string exits_section(const Group& group) {
  std::string html;
  for (const std::int64_t budget : group.budgets()) {
    const auto has_exits = [](const ReportRun* run) {
      return std::ranges::any_of(run->record.summary.methods,
                                 [](const MethodSummary& method) { return !method.exits.empty(); });
    };
    if (std::ranges::none_of(group.under(budget), has_exits)) continue;
    html += fmt::format("<h4>Under {}</h4>\n<div class=\"pair\">\n", format_bytes(budget));
    for (const Measure& measure : kMeasures) html += ExitPlot(group, budget, measure).draw();
    html += "</div>\n";
  }
  if (html.empty()) return "";
  return "<h3>Exits</h3>\n" +
         paragraph(
             "Every exit of a net that was trained by parts, numbered by its unit: large points "
             "are means over seeds, small ones single seeds, a ring the exit that was delivered, "
             "the line the exits that no cheaper or faster one beats, a square a net that was "
             "trained as a whole. Speeds are those of this run's machine under its budget.") +
         html;
}

}  // namespace nf::report
