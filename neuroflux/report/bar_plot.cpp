#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/error.h"
#include "neuroflux/report/svg_plot.h"

namespace nf::report {
namespace {

constexpr double kBar = 18.0, kBetween = 5.0, kGroupGap = 12.0, kBarTextSize = 12.0;

double sum_of(const BarPlot::Bar& bar) {
  return std::accumulate(bar.parts.begin(), bar.parts.end(), 0.0);
}

void check(const BarPlot& plot) {
  for (const BarPlot::Bar& bar : plot.bars) {
    NF_CHECK(bar.parts.size() == plot.names.size() && plot.colours.size() == plot.names.size(),
             "bars \"{}\": {} has {} parts of {} names and {} colours", plot.text.title, bar.label,
             bar.parts.size(), plot.names.size(), plot.colours.size());
    for (const double part : bar.parts)
      NF_CHECK(part >= 0.0 && std::isfinite(part),
               "bars \"{}\": a part of {} is {}; it must be finite and not negative",
               plot.text.title, bar.label, part);
  }
}

}  // namespace

std::string draw(const BarPlot& plot) {
  check(plot);
  double left = 0.0, right = 0.0, most = 0.0, height = 8.0;
  for (const BarPlot::Bar& bar : plot.bars) {
    left = std::max(left, text_width(bar.label, kBarTextSize) + 12.0);
    right = std::max(right, text_width(plot.x.format(sum_of(bar)), kBarTextSize) + 14.0);
    most = std::max(most, sum_of(bar));
    height += kBar + kBetween + (bar.gap_before ? kGroupGap : 0.0);
  }
  if (most == 0.0) most = 1.0;
  const double room = plot.width - left - right, bottom = height;
  Svg svg(plot.width, height + 46.0, plot.text.title);
  const auto at = [&](double value) { return left + value / most * room; };
  double free_from = 0.0;
  for (const double tick : nice_ticks(0.0, most, 5)) {
    const std::string text = plot.x.format(tick);
    const double half = text_width(text, kBarTextSize) / 2;
    svg.line(at(tick), 4.0, at(tick), bottom, "grid");
    if (at(tick) - half < free_from) continue;
    svg.text(at(tick), bottom + 16.0, text, "", Anchor::middle);
    free_from = at(tick) + half + 6.0;
  }
  svg.text(left + room / 2, bottom + 38.0, plot.x.label, "name", Anchor::middle);
  double y = 8.0;
  for (const BarPlot::Bar& bar : plot.bars) {
    if (bar.gap_before) y += kGroupGap;
    svg.text(left - 8.0, y + 13.5, bar.label, "", Anchor::end);
    double from = 0.0;
    for (std::size_t i = 0; i < bar.parts.size(); ++i) {
      if (bar.parts[i] <= 0.0) continue;
      svg.rect({at(from), y, at(from + bar.parts[i]) - at(from), kBar}, "fill " + plot.colours[i],
               fmt::format("{}: {} {}", bar.label, plot.names[i], plot.x.format(bar.parts[i])));
      from += bar.parts[i];
    }
    if (from > 0.0) svg.text(at(from) + 6.0, y + 13.5, plot.x.format(from), "small");
    y += kBar + kBetween;
  }
  std::vector<LegendEntry> legend;
  for (std::size_t i = 0; i < plot.names.size(); ++i)
    legend.push_back({plot.names[i], plot.colours[i]});
  return figure(plot.text, svg.str(), legend);
}

}  // namespace nf::report
