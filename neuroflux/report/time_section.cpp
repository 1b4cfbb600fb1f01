// Where the time of each block went, beside what was predicted.
#include <fmt/format.h>

#include <algorithm>

#include "engine/text.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

// Seconds in the order of the legend.
std::vector<double> measured_parts(const BlockSummary& block) {
  const double wait = std::min(block.cache_wait_seconds.value_or(0.0), *block.train_seconds);
  const double evaluation = block.evaluation_seconds.value_or(0.0);
  const double evaluation_wait = std::min(block.evaluation_wait_seconds.value_or(0.0), evaluation);
  return {*block.train_seconds - wait, wait + evaluation_wait, block.cache_seconds.value_or(0.0),
          evaluation - evaluation_wait};
}

// Over those runs whose block was trained and is the same one.
BarPlot::Bar measured_bar(const std::vector<const MethodSummary*>& methods, std::size_t index) {
  const BlockSummary& wanted = methods.front()->blocks[index];
  std::vector<double> sums(4, 0.0);
  double trained = 0.0, waited = 0.0;
  int count = 0;
  for (const MethodSummary* method : methods) {
    if (index >= method->blocks.size()) continue;
    const BlockSummary& block = method->blocks[index];
    const bool same = block.first_unit == wanted.first_unit &&
                      block.last_unit == wanted.last_unit && block.batch == wanted.batch;
    if (!same || !block.train_seconds) continue;
    const std::vector<double> parts = measured_parts(block);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += parts[i];
    trained += *block.train_seconds;
    waited += std::min(block.cache_wait_seconds.value_or(0.0), *block.train_seconds);
    ++count;
  }
  if (count == 0) return {};
  for (double& sum : sums) sum /= count;
  std::string label = count == 1 ? "measured" : fmt::format("measured, mean of {}", count);
  if (waited > 0.0) label += fmt::format("; training waited {}", format_percent(waited / trained));
  return {label, sums};
}

}  // namespace

std::string time_section(const Group& group) {
  std::string html;
  for (const std::int64_t budget : group.budgets())
    for (const std::string& name : group.methods()) {
      std::vector<const MethodSummary*> methods;
      const Plan* plan = nullptr;
      for (const ReportRun* run : group.under(budget)) {
        const MethodSummary* method = method_of(*run, name);
        if (method == nullptr || method->blocks.empty()) continue;
        if (plan == nullptr) plan = run->record.plan_of(name);
        methods.push_back(method);
      }
      if (plan == nullptr) continue;
      BarPlot plot{
          .text = {fmt::format("{} under {}", name, format_bytes(budget)),
                   plan->time_source == "measured"
                       ? "The planner measured single steps and predicted from these. Training and "
                         "validation wait for the cache."
                       : "The planner predicted from FLOPs and bytes. Training and validation wait "
                         "for the cache."},
          .x = {.label = "time", .format = format_seconds},
          .names = {"training", "waiting for the cache", "filling the cache", "evaluation"},
          .colours = {"t0", "t1", "t2", "t3"},
          .bars = {},
          .width = 1040.0};
      for (std::size_t i = 0; i < std::min(plan->blocks.size(), methods.front()->blocks.size());
           ++i) {
        const BlockTime& time = plan->blocks[i].time;
        plot.bars.push_back({fmt::format("block {}, predicted", i + 1),
                             {time.train, 0.0, time.cache, time.evaluation},
                             i > 0});
        BarPlot::Bar measured = measured_bar(methods, i);
        if (measured.parts.empty()) measured = {"not trained", {0.0, 0.0, 0.0, 0.0}};
        plot.bars.push_back(std::move(measured));
      }
      html += draw(plot);
    }
  return html.empty() ? "" : "<h3>Where the time of each block went</h3>\n" + html;
}

}  // namespace nf::report
