// Memory over one training step, by category.
#include <fmt/format.h>

#include <algorithm>

#include "engine/text.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

constexpr std::size_t kMostPlaces = 500;  // columns of the picture, about

const char* words(Category category) {
  constexpr std::array<const char*, kCategories> names{
      "parameters",      "buffers",     "parameter gradients",
      "optimizer state", "activations", "activation gradients",
      "workspace",       "input"};
  return names[static_cast<std::size_t>(category)];
}

// Of every few events the one that holds most: no peak is lost where they are many.
std::vector<std::size_t> places_of(const std::vector<MemoryEvent>& events) {
  const std::size_t stride = events.size() / kMostPlaces + 1;
  std::vector<std::size_t> places;
  for (std::size_t begin = 0; begin < events.size(); begin += stride) {
    std::size_t most = begin;
    for (std::size_t i = begin; i < std::min(begin + stride, events.size()); ++i)
      if (events[i].live > events[most].live) most = i;
    places.push_back(most);
  }
  return places;
}

std::string draw_step(const StepMemory& step, const MethodSummary& method, std::int64_t budget) {
  const std::vector<MemoryEvent>& events = step.events;
  std::int64_t peak = 0;
  for (const MemoryEvent& event : events) peak = std::max(peak, event.reserved);
  XyPlot plot{
      .text = {fmt::format("{}{}, batch {}", step.method,
                           step.block > 0 ? fmt::format(", block {}", step.block) : "", step.batch),
               ""},
      .x = {.label = "allocations and releases of one step, in their order",
            .format = format_count,
            .ticks = false,
            .tight = true},
      .y = {.label = "device memory",
            .format = [](double value) { return format_bytes(static_cast<std::int64_t>(value)); },
            .from_zero = true,
            .tick_base = 1024},
      .references = {{static_cast<double>(budget), fmt::format("budget {}", format_bytes(budget))}},
      .width = 1040.0,
      .height = 380.0};
  const std::vector<std::size_t> places = places_of(events);
  Series reserved{.name = "reserved", .colour = "ink", .steps = true};
  for (const std::size_t i : places) {
    plot.areas.x.push_back(static_cast<double>(i));
    reserved.line.push_back({static_cast<double>(i), static_cast<double>(events[i].reserved)});
  }
  plot.series.push_back(std::move(reserved));
  for (std::size_t category = 0; category < kCategories; ++category) {
    StackedAreas::Level level{
        words(static_cast<Category>(category)), fmt::format("m{}", category), {}};
    for (const std::size_t i : places)
      level.heights.push_back(static_cast<double>(events[i].by_category[category]));
    if (std::ranges::any_of(level.heights, [](double height) { return height > 0.0; }))
      plot.areas.levels.push_back(std::move(level));
  }
  for (std::size_t i = 0; i < events.size(); ++i) {
    const std::string name = events[i].unit;
    if (plot.bands.empty() || plot.bands.back().name != name)
      plot.bands.push_back({static_cast<double>(i), static_cast<double>(i), name});
    plot.bands.back().to = static_cast<double>(std::min(i + 1, events.size() - 1));
  }
  plot.text.caption = fmt::format("At most {} are reserved, holes between allocations included",
                                  format_bytes(peak));
  if (method.predicted_peak_bytes)
    plot.text.caption +=
        fmt::format("; the plan predicted {}", format_bytes(*method.predicted_peak_bytes));
  if (method.measured_peak_bytes)
    plot.text.caption +=
        fmt::format(", the run measured {}", format_bytes(*method.measured_peak_bytes));
  if (method.predicted_peak_bytes && *method.predicted_peak_bytes != peak)
    plot.text.caption += fmt::format("; this build takes {} bytes more than the one that planned",
                                     peak - *method.predicted_peak_bytes);
  plot.text.caption +=
      ". Shaded bands are units, in the order in which they work; at first their weights are "
      "placed.";
  return draw(plot);
}

// The step of the first run that has one of this method; empty where none has.
std::string draw_first_step(const std::vector<const ReportRun*>& runs, const std::string& name,
                            std::int64_t budget) {
  for (const ReportRun* run : runs) {
    const MethodSummary* method = method_of(*run, name);
    const auto step = std::ranges::find(run->steps, name, &StepMemory::method);
    if (method != nullptr && step != run->steps.end() && !step->events.empty())
      return draw_step(*step, *method, budget);
  }
  return "";
}

}  // namespace

std::string memory_section(const Group& group) {
  std::string html;
  for (const std::int64_t budget : group.budgets()) {
    const std::vector<const ReportRun*> runs = group.under(budget);
    html += fmt::format("<h4>Under {}</h4>\n", format_bytes(budget));
    std::vector<std::string> reasons;
    for (const ReportRun* run : runs) {
      const std::string& reason = run->without_steps;
      if (reason.empty() || std::ranges::count(reasons, reason) > 0) continue;
      html += paragraph("The step could not be run again: " + reason);
      reasons.push_back(reason);
    }
    std::string unfit;
    for (const std::string& name : group.methods()) {
      const auto does_not_fit = [&](const ReportRun* run) {
        const MethodSummary* method = method_of(*run, name);
        return method != nullptr && !method->fits;
      };
      html += draw_first_step(runs, name, budget);
      if (std::ranges::any_of(runs, does_not_fit))
        unfit += fmt::format("{}{}", unfit.empty() ? "" : ", ", name);
    }
    if (!unfit.empty()) html += paragraph("Without a step, since it does not fit: " + unfit + ".");
  }
  return "<h3>Memory of one training step</h3>\n" +
         paragraph(
             "The step of each method's largest block (of a net that is trained as a whole: of the "
             "net), run again without a device: the same allocations in the same order.") +
         html;
}

}  // namespace nf::report
