#include "neuroflux/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/error.h"

namespace nf::report {
namespace {

constexpr double kLeastWidth = 760.0;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of the UTF-8 character that begins the text; 0: none does.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  // Too long a form, half of a surrogate pair, beyond the last character.
  const bool wrong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F) ||
                     (lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F);
  return wrong ? 0 : length;
}

std::string number(double value) {
  NF_CHECK(std::isfinite(value), "svg: a coordinate is {}", value);
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

const char* name_of(Anchor anchor) {
  return anchor == Anchor::start ? "start" : anchor == Anchor::middle ? "middle" : "end";
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string escaped;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text.front();
    const bool control = static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t';
    if (length == 0 || control || c == 0x7F)
      escaped += kReplacement;
    else if (c == '&')
      escaped += "&amp;";
    else if (c == '<')
      escaped += "&lt;";
    else if (c == '>')
      escaped += "&gt;";
    else if (c == '"')
      escaped += "&quot;";
    else if (c == '\'')
      escaped += "&#39;";
    else
      escaped += text.substr(0, length);
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return escaped;
}

std::vector<double> nice_ticks(double low, double high, int wanted, int base) {
  NF_CHECK(std::isfinite(low) && std::isfinite(high) && low < high && wanted >= 1,
           "ticks: {} to {} in about {} steps; the ends must be finite and ascending", low, high,
           wanted);
  // Half of each first: the difference may be more than a double holds.
  const double rough = 2.0 * (high / 2.0 / wanted - low / 2.0 / wanted);
  double step = 0.0;
  if (base == 1024) {
    step = std::exp2(std::max(0.0, std::round(std::log2(rough))));
  } else {
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    const double factor = rough / power;
    step = power * (factor < 1.5 ? 1.0 : factor < 3.5 ? 2.0 : factor < 7.5 ? 5.0 : 10.0);
  }
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-9);
  for (double i = first; i <= last && ticks.size() < 100; ++i) {
    // A range that is tiny beside its values leaves no steps between them.
    if (!ticks.empty() && !(i * step > ticks.back())) break;
    ticks.push_back(i * step + 0.0);  // never -0
  }
  if (ticks.empty()) ticks.push_back(low);
  return ticks;
}

std::vector<double> log_ticks(double low, double high) {
  NF_CHECK(low > 0.0 && low <= high && std::isfinite(high),
           "ticks: {} to {}; logarithms need positive finite ascending ends", low, high);
  const double decades = std::log10(high) - std::log10(low);
  const std::vector<double> factors = decades < 1.0   ? std::vector{1.0, 2.0, 3.0, 5.0}
                                      : decades < 3.0 ? std::vector{1.0, 2.0, 5.0}
                                                      : std::vector{1.0};
  const int every = std::max(1, static_cast<int>(decades / 8.0));
  std::vector<double> ticks;
  const int first = static_cast<int>(std::floor(std::log10(low)));
  for (int power = first; power <= static_cast<int>(std::log10(high)) + 1; power += every)
    for (const double factor : factors) {
      const double tick = factor * std::pow(10.0, power);
      if (tick >= low * (1.0 - 1e-9) && tick <= high * (1.0 + 1e-9)) ticks.push_back(tick);
    }
  if (ticks.empty()) ticks.push_back(low);
  return ticks;
}

double text_width(std::string_view text, double size) {
  const auto characters = std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  return static_cast<double>(characters) * size * 0.6;
}

bool Box::overlaps(const Box& other) const {
  return x < other.x + other.width && other.x < x + width && y < other.y + other.height &&
         other.y < y + height;
}

bool Box::within(const Box& outer) const {
  return x >= outer.x && y >= outer.y && x + width <= outer.x + outer.width &&
         y + height <= outer.y + outer.height;
}

std::optional<Label> LabelPlacer::place(double x, double y, std::string_view text, double size) {
  const double width = text_width(text, size), gap = 0.6 * size;
  const std::array<Label, 4> places{
      Label{x + gap, y + 0.35 * size, Anchor::start, {x + gap, y - 0.5 * size, width, size}},
      Label{x - gap, y + 0.35 * size, Anchor::end, {x - gap - width, y - 0.5 * size, width, size}},
      Label{x, y - gap, Anchor::middle, {x - width / 2, y - gap - size, width, 1.1 * size}},
      Label{x, y + gap + size, Anchor::middle, {x - width / 2, y + gap, width, 1.3 * size}}};
  for (const Label& label : places) {
    const auto hits = [&](const Box& box) { return box.overlaps(label.box); };
    if (!label.box.within(area_) || std::ranges::any_of(taken_, hits)) continue;
    taken_.push_back(label.box);
    return label;
  }
  return std::nullopt;
}

Svg::Svg(double width, double height, std::string_view description)
    : width_(width), height_(height) {
  // A narrow window scrolls a picture rather than shrink its text beyond reading.
  body_ = fmt::format(
      "<svg viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" style=\"min-width: {2}px\" "
      "role=\"img\" aria-label=\"{3}\">\n",
      number(width), number(height), number(std::min(width, kLeastWidth)),
      escape_markup(description));
}

void Svg::close(const char* element, std::string_view tooltip) {
  if (tooltip.empty())
    body_ += "/>\n";
  else
    body_ += fmt::format("><title>{}</title></{}>\n", escape_markup(tooltip), element);
}

void Svg::rect(const Box& box, std::string_view style, std::string_view tooltip, double radius) {
  body_ += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{}\"",
                       number(box.x), number(box.y), number(std::max(0.0, box.width)),
                       number(std::max(0.0, box.height)), escape_markup(style));
  if (radius > 0.0) body_ += fmt::format(" rx=\"{}\"", number(radius));
  close("rect", tooltip);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view style) {
  body_ += fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\"/>\n", number(x1),
                       number(y1), number(x2), number(y2), escape_markup(style));
}

void Svg::circle(double x, double y, double radius, std::string_view style,
                 std::string_view tooltip) {
  body_ += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"{}\" class=\"{}\"", number(x), number(y),
                       number(radius), escape_markup(style));
  close("circle", tooltip);
}

void Svg::points(const char* element, const std::vector<Point>& points, std::string_view style,
                 std::string_view tooltip) {
  if (points.empty()) return;
  body_ += fmt::format("<{} class=\"{}\" points=\"", element, escape_markup(style));
  for (const Point& point : points)
    body_ += fmt::format("{},{} ", number(point.x), number(point.y));
  body_.back() = '"';
  close(element, tooltip);
}

void Svg::polyline(const std::vector<Point>& line, std::string_view style,
                   std::string_view tooltip) {
  points("polyline", line, style, tooltip);
}

void Svg::polygon(const std::vector<Point>& corners, std::string_view style,
                  std::string_view tooltip) {
  points("polygon", corners, style, tooltip);
}

void Svg::text(double x, double y, std::string_view text, std::string_view style, Anchor anchor,
               bool upwards) {
  body_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\" class=\"{}\"", number(x),
                       number(y), name_of(anchor), escape_markup(style));
  if (upwards) body_ += fmt::format(" transform=\"rotate(-90 {} {})\"", number(x), number(y));
  body_ += fmt::format(">{}</text>\n", escape_markup(text));
}

std::string Svg::str() const { return body_ + "</svg>\n"; }

}  // namespace nf::report
