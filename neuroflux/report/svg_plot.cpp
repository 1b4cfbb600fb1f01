#include "neuroflux/report/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace nf::report {
namespace {

constexpr double kTextSize = 12.0;  // as in the style sheet

// Values along one axis and where they are in the picture.
class Axes1d {
 public:
  Axes1d(const Axis& axis, const std::string& title) : axis_(axis), title_(title) {}

  void take(double value) {
    NF_CHECK(std::isfinite(value), "plot \"{}\": a value of {} is {}", title_, axis_.label, value);
    NF_CHECK(!axis_.logarithmic || value > 0.0,
             "plot \"{}\": a value of {} is {}; its axis is logarithmic", title_, axis_.label,
             value);
    low_ = empty_ ? value : std::min(low_, value);
    high_ = empty_ ? value : std::max(high_, value);
    empty_ = false;
  }
  bool empty() const { return empty_; }

  // From picture coordinate `from` to `to`; some room is left beyond the values.
  void lay_out(double from, double to, int wanted_ticks) {
    from_ = from;
    to_ = to;
    if (axis_.logarithmic) {
      const double room = std::max(std::pow(high_ / low_, 0.06), 1.1);
      low_ /= room;
      high_ *= room;
      if (axis_.ticks) ticks_ = log_ticks(low_, high_);
      return;
    }
    if (axis_.from_zero) low_ = std::min(low_, 0.0);
    if (axis_.tight && high_ > low_) {
      if (axis_.ticks) ticks_ = nice_ticks(low_, high_, wanted_ticks, axis_.tick_base);
      return;
    }
    const double size = std::max({high_ - low_, std::abs(high_) * 1e-6, 1e-12});
    high_ += 0.05 * size;
    if (!axis_.from_zero || low_ < 0.0) low_ -= 0.05 * size;
    if (axis_.ticks) ticks_ = nice_ticks(low_, high_, wanted_ticks, axis_.tick_base);
  }

  double at(double value) const {
    const double share = axis_.logarithmic ? std::log(value / low_) / std::log(high_ / low_)
                                           : (value - low_) / (high_ - low_);
    return from_ + share * (to_ - from_);
  }
  const std::vector<double>& ticks() const { return ticks_; }
  std::string tick_text(double tick) const { return axis_.format(tick); }

 private:
  const Axis& axis_;
  const std::string& title_;
  bool empty_ = true;
  double low_ = 0.0, high_ = 0.0, from_ = 0.0, to_ = 1.0;
  std::vector<double> ticks_;
};

std::string description(const XyPlot& plot) {
  return plot.text.title.empty() ? plot.y.label + " against " + plot.x.label : plot.text.title;
}

class XyDrawing {
 public:
  explicit XyDrawing(const XyPlot& plot)
      : plot_(plot),
        svg_(plot.width, plot.height, description(plot)),
        x_(plot.x, plot.text.title),
        y_(plot.y, plot.text.title) {}

  std::string draw() {
    measure();
    if (x_.empty() || y_.empty()) {
      svg_.text(plot_.width / 2, plot_.height / 2, "no values were recorded", "", Anchor::middle);
      return figure(plot_.text, svg_.str(), {});
    }
    y_.lay_out(area_.y + area_.height, area_.y, 5);
    fit_left_margin();
    x_.lay_out(area_.x, area_.x + area_.width, 6);
    draw_bands();
    draw_axes();
    draw_areas();
    for (const Series& series : plot_.series)
      svg_.polyline(places_of_line(series), line_style(series), series.tooltip);
    draw_references();
    draw_marks();
    return figure(plot_.text, svg_.str(), legend());
  }

 private:
  void measure() {
    const StackedAreas& areas = plot_.areas;
    std::vector<double> sums(areas.x.size(), 0.0);
    for (const StackedAreas::Level& level : areas.levels) {
      NF_CHECK(level.heights.size() == areas.x.size(),
               "plot \"{}\": {} has {} heights at {} places", plot_.text.title, level.name,
               level.heights.size(), areas.x.size());
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += level.heights[i];
    }
    for (const double x : areas.x) x_.take(x);
    for (const double sum : sums) y_.take(sum);
    for (const Series& series : plot_.series) {
      for (const Svg::Point& point : series.line) take(point.x, point.y);
      for (const Mark& mark : series.marks) take(mark.x, mark.y);
    }
    if (y_.empty()) return;
    // With room for the name above it.
    for (const ReferenceLine& reference : plot_.references)
      y_.take(reference.y + 0.08 * std::abs(reference.y));
  }
  void take(double x, double y) {
    x_.take(x);
    y_.take(y);
  }

  void fit_left_margin() {
    double widest = 0.0;
    for (const double tick : y_.ticks())
      widest = std::max(widest, text_width(y_.tick_text(tick), kTextSize));
    const double margin = widest + 34.0;
    area_.width -= margin - area_.x;
    area_.x = margin;
  }

  std::vector<Svg::Point> places_of_line(const Series& series) const {
    std::vector<Svg::Point> result;
    for (const Svg::Point& point : series.line) {
      const Svg::Point here{x_.at(point.x), y_.at(point.y)};
      if (series.steps && !result.empty()) result.push_back({here.x, result.back().y});
      result.push_back(here);
    }
    return result;
  }

  static std::string line_style(const Series& series) {
    return fmt::format("line {} dash{}", series.colour, series.dashes);
  }

  void draw_bands() {
    bool odd = false;
    for (const Band& band : plot_.bands) {
      const double from = x_.at(band.from), to = x_.at(band.to);
      svg_.rect({from, area_.y, to - from, area_.height}, odd ? "band odd" : "band", band.name);
      odd = !odd;
      if (text_width(band.name, kTextSize) + 4.0 < to - from)
        svg_.text((from + to) / 2, area_.y - 5.0, band.name, "small", Anchor::middle);
    }
  }

  void draw_axes() {
    const double left = area_.x, right = area_.x + area_.width;
    const double bottom = area_.y + area_.height;
    for (const double tick : y_.ticks()) {
      svg_.line(left, y_.at(tick), right, y_.at(tick), "grid");
      svg_.text(left - 6.0, y_.at(tick) + 4.0, y_.tick_text(tick), "", Anchor::end);
    }
    double free_from = 0.0;
    for (const double tick : x_.ticks()) {
      const std::string text = x_.tick_text(tick);
      const double half = text_width(text, kTextSize) / 2;
      svg_.line(x_.at(tick), area_.y, x_.at(tick), bottom, "grid");
      if (x_.at(tick) - half < free_from || x_.at(tick) + half > plot_.width) continue;
      svg_.text(x_.at(tick), bottom + 17.0, text, "", Anchor::middle);
      free_from = x_.at(tick) + half + 6.0;
    }
    svg_.line(left, bottom, right, bottom, "axis");
    svg_.line(left, area_.y, left, bottom, "axis");
    svg_.text((left + right) / 2, bottom + (plot_.x.ticks ? 40.0 : 20.0), plot_.x.label, "name",
              Anchor::middle);
    svg_.text(14.0, (area_.y + bottom) / 2, plot_.y.label, "name", Anchor::middle, true);
  }

  void draw_areas() {
    const StackedAreas& areas = plot_.areas;
    std::vector<double> below(areas.x.size(), 0.0);
    for (const StackedAreas::Level& level : areas.levels) {
      std::vector<Svg::Point> corners;
      // Steps: what is held stays as it is until the next event.
      const auto add = [&](std::size_t i, bool forwards) {
        const Svg::Point here{x_.at(areas.x[i]), y_.at(below[i])};
        if (i > 0 && forwards) corners.push_back({here.x, y_.at(below[i - 1])});
        corners.push_back(here);
        if (i > 0 && !forwards) corners.push_back({here.x, y_.at(below[i - 1])});
      };
      for (std::size_t i = areas.x.size(); i-- > 0;) add(i, false);
      for (std::size_t i = 0; i < below.size(); ++i) below[i] += level.heights[i];
      for (std::size_t i = 0; i < areas.x.size(); ++i) add(i, true);
      svg_.polygon(corners, "fill " + level.colour, level.name);
    }
  }

  void draw_references() {
    for (const ReferenceLine& reference : plot_.references) {
      const double y = y_.at(reference.y);
      svg_.line(area_.x, y, area_.x + area_.width, y, "reference");
      const bool above = y - area_.y > 1.5 * kTextSize;
      svg_.text(area_.x + area_.width - 4.0, above ? y - 5.0 : y + 1.1 * kTextSize, reference.label,
                "reference-text", Anchor::end);
      const double width = text_width(reference.label, kTextSize);
      taken_.push_back({area_.x + area_.width - width, y - 18.0, width, 36.0});
    }
  }

  void draw_marks() {
    LabelPlacer labels(area_);
    for (const Box& box : taken_) labels.keep_free(box);
    // Steps are level or upright: a label beside them can be kept off.
    for (const Series& series : plot_.series) {
      const std::vector<Svg::Point> line =
          series.steps ? places_of_line(series) : std::vector<Svg::Point>{};
      for (std::size_t i = 1; i < line.size(); ++i)
        labels.keep_free(
            {std::min(line[i - 1].x, line[i].x) - 1.0, std::min(line[i - 1].y, line[i].y) - 1.0,
             std::abs(line[i].x - line[i - 1].x) + 2.0, std::abs(line[i].y - line[i - 1].y) + 2.0});
    }
    for (const Series& series : plot_.series)
      for (const Mark& mark : series.marks) {
        const double x = x_.at(mark.x), y = y_.at(mark.y);
        const std::string style =
            fmt::format("fill {}{}", series.colour, mark.faint ? " faint" : "");
        if (series.square)
          svg_.rect({x - 5.0, y - 5.0, 10.0, 10.0}, style, mark.tooltip);
        else
          svg_.circle(x, y, mark.faint ? 3.0 : 4.5, style, mark.tooltip);
        if (mark.ringed) svg_.circle(x, y, 9.0, "ring " + series.colour, mark.tooltip);
        const double reach = mark.ringed ? 10.0 : 5.0;
        labels.keep_free({x - reach, y - reach, 2.0 * reach, 2.0 * reach});
      }
    for (const Series& series : plot_.series)
      for (const Mark& mark : series.marks) {
        if (mark.label.empty()) continue;
        if (const auto label = labels.place(x_.at(mark.x), y_.at(mark.y), mark.label, 12.0))
          svg_.text(label->x, label->y, mark.label, "small", label->anchor);
      }
  }

  std::vector<LegendEntry> legend() const {
    std::vector<LegendEntry> entries;
    const auto add = [&](const LegendEntry& entry) {
      if (!entry.name.empty() && std::ranges::count(entries, entry) == 0) entries.push_back(entry);
    };
    for (const Series& series : plot_.series) add({series.name, series.colour});
    // From top to bottom, as they lie.
    for (std::size_t i = plot_.areas.levels.size(); i-- > 0;)
      add({plot_.areas.levels[i].name, plot_.areas.levels[i].colour});
    return entries;
  }

  const XyPlot& plot_;
  Svg svg_;
  Axes1d x_, y_;
  Box area_{60.0, 24.0, plot_.width - 60.0 - 16.0,
            plot_.height - 24.0 - (plot_.x.ticks ? 48.0 : 28.0)};
  std::vector<Box> taken_;
};

}  // namespace

std::string draw(const XyPlot& plot) { return XyDrawing(plot).draw(); }

std::string figure(const FigureText& text, const std::string& picture,
                   const std::vector<LegendEntry>& legend) {
  std::string html = "<figure>\n";
  if (!text.title.empty()) html += fmt::format("<h4>{}</h4>\n", escape_markup(text.title));
  if (!legend.empty()) {
    html += "<ul class=\"legend\">";
    for (const LegendEntry& entry : legend)
      html += fmt::format("<li><span class=\"swatch {}\"></span>{}</li>",
                          escape_markup(entry.colour), escape_markup(entry.name));
    html += "</ul>\n";
  }
  html += fmt::format("<div class=\"picture\">{}</div>\n", picture);
  if (!text.caption.empty())
    html += fmt::format("<figcaption>{}</figcaption>\n", escape_markup(text.caption));
  return html + "</figure>\n";
}

}  // namespace nf::report
