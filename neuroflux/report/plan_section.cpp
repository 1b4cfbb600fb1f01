// Plans as pictures: units as boxes within their blocks.
#include <fmt/format.h>

#include <algorithm>

#include "engine/text.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

constexpr double kUnitWidth = 92.0, kUnitHeight = 66.0, kGap = 8.0, kWidth = 1000.0;
constexpr double kLeastBlock = 196.0, kHeader = 24.0, kFooter = 62.0;
constexpr std::int64_t kUnitsInRow = 9;

// How a block is laid out: its units in rows, its figures below.
struct BlockBox {
  std::int64_t columns = 1, rows = 1;
  double width = 0.0, height = 0.0, x = 0.0, y = 0.0;
};

std::vector<BlockBox> lay_out(const Plan& plan) {
  std::vector<BlockBox> boxes;
  double x = 1.0, y = 1.0, row_height = 0.0;
  for (const BlockPlan& block : plan.blocks) {
    BlockBox box;
    const std::int64_t units = block.last_unit - block.first_unit + 1;
    box.columns = std::min(units, kUnitsInRow);
    box.rows = (units + kUnitsInRow - 1) / kUnitsInRow;
    box.width =
        std::max(kLeastBlock, static_cast<double>(box.columns) * (kUnitWidth + kGap) + kGap);
    box.height = kHeader + static_cast<double>(box.rows) * (kUnitHeight + kGap) + kFooter;
    if (x > 1.0 && x + box.width > kWidth) {
      x = 1.0;
      y += row_height + 14.0;
      row_height = 0.0;
    }
    box.x = x;
    box.y = y;
    x += box.width + 14.0;
    row_height = std::max(row_height, box.height);
    boxes.push_back(box);
  }
  return boxes;
}

std::string count(std::int64_t value) { return format_count(static_cast<double>(value)); }

std::string extents(const Shape& shape) {
  std::string text;
  for (const std::int64_t extent : shape.extents())
    text += fmt::format("{}{}", text.empty() ? "" : "×", extent);
  return text;
}

void draw_unit(Svg& svg, const UnitPlan& unit, std::int64_t number, bool chosen, double x,
               double y) {
  const std::string width =
      unit.auxiliary_width > 0 ? fmt::format("classifier {}", unit.auxiliary_width) : "own head";
  svg.rect({x, y, kUnitWidth, kUnitHeight}, chosen ? "unit chosen" : "unit",
           fmt::format("unit {} {}: output {}, {} parameters; {}, {} parameters; exit {} "
                       "parameters; feasible batch {}",
                       number, unit.name, extents(unit.output), count(unit.parameters), width,
                       count(unit.auxiliary_parameters), count(unit.exit_parameters),
                       unit.feasible_batch),
           5.0);
  const double middle = x + kUnitWidth / 2;
  svg.text(middle, y + 17.0, shortened(fmt::format("{} {}", number, unit.name), 12), "strong",
           Anchor::middle);
  svg.text(middle, y + 32.0, shortened(extents(unit.output), 12), "small", Anchor::middle);
  svg.text(middle, y + 46.0, shortened(width, 14), "small", Anchor::middle);
  svg.text(middle, y + 60.0, chosen ? "delivered" : count(unit.parameters), "small",
           Anchor::middle);
}

double share_of(std::int64_t bytes, std::int64_t budget) {
  if (budget <= 0) return 0.0;
  return std::min(1.0, static_cast<double>(bytes) / static_cast<double>(budget));
}

void draw_block(Svg& svg, const Plan& plan, std::size_t index, const MethodSummary& method,
                std::int64_t budget, const BlockBox& box) {
  const BlockPlan& block = plan.blocks[index];
  const BlockSummary* run = index < method.blocks.size() ? &method.blocks[index] : nullptr;
  const bool trained = run != nullptr && run->train_seconds;
  svg.rect({box.x, box.y, box.width, box.height}, trained ? "block" : "block untrained", "", 8.0);
  svg.text(box.x + 10.0, box.y + 17.0, fmt::format("block {} · batch {}", index + 1, block.batch),
           "strong");
  for (std::int64_t unit = block.first_unit; unit <= block.last_unit; ++unit) {
    const std::int64_t place = unit - block.first_unit;
    draw_unit(svg, plan.units[static_cast<std::size_t>(unit)], unit + 1,
              method.exit_unit == unit + 1,
              box.x + kGap + static_cast<double>(place % kUnitsInRow) * (kUnitWidth + kGap),
              box.y + kHeader + static_cast<double>(place / kUnitsInRow) * (kUnitHeight + kGap));
  }
  const double left = box.x + 10.0, room = box.width - 20.0;
  const double foot = box.y + box.height - kFooter + 6.0;
  svg.rect({left, foot, room, 7.0}, "track", fmt::format("budget {}", format_bytes(budget)), 3.0);
  svg.rect({left, foot, room * share_of(block.predicted_peak_bytes, budget), 7.0}, "fill t0",
           fmt::format("predicted peak {} of {}", format_bytes(block.predicted_peak_bytes),
                       format_bytes(budget)),
           3.0);
  const auto pair = [&](double y, const char* name, const std::string& predicted,
                        const std::string& measured) {
    svg.text(left, y, name, "small");
    svg.text(left + room, y, predicted + " / " + measured, "", Anchor::end);
  };
  pair(foot + 26.0, "peak", format_bytes(block.predicted_peak_bytes),
       trained && run->measured_peak_bytes ? format_bytes(*run->measured_peak_bytes) : "–");
  pair(foot + 45.0, "time", format_seconds(block.time.train + block.time.cache),
       trained ? format_seconds(*run->train_seconds + run->cache_seconds.value_or(0.0))
               : "not trained");
}

}  // namespace

std::string draw_plan(const Plan& plan, const MethodSummary& method, std::int64_t budget,
                      std::uint64_t seed) {
  const std::vector<BlockBox> boxes = lay_out(plan);
  double width = 0.0, height = 0.0;
  for (const BlockBox& box : boxes) {
    width = std::max(width, box.x + box.width + 1.0);
    height = std::max(height, box.y + box.height + 1.0);
  }
  const FigureText text{
      fmt::format("{} under {}", method.name, format_bytes(budget)),
      fmt::format("Predicted / measured with seed {}; time is training and filling the cache; the "
                  "bar is the predicted peak as a share of the budget. Auxiliary networks by the "
                  "rule {}, partition {}, times {}.",
                  seed, plan.auxiliary_rule, plan.partition, plan.time_source)};
  Svg svg(width, height, "plan of " + text.title);
  for (std::size_t i = 0; i < boxes.size(); ++i) draw_block(svg, plan, i, method, budget, boxes[i]);
  return figure(text, svg.str(), {});
}

std::string plan_section(const Group& group) {
  std::string html;
  for (const std::int64_t budget : group.budgets())
    for (const std::string& name : group.methods())
      for (const ReportRun* run : group.under(budget)) {
        const MethodSummary* method = method_of(*run, name);
        const Plan* plan = run->record.plan_of(name);
        if (method == nullptr || plan == nullptr || plan->blocks.empty()) continue;
        html += draw_plan(*plan, *method, budget, run->record.summary.seed);
        break;  // one seed's is like another's
      }
  if (html.empty()) return "";
  return "<h3>Plans</h3>\n" +
         paragraph(
             "Units in their blocks, with output, width of the auxiliary classifier and "
             "parameters.") +
         html;
}

}  // namespace nf::report
