#include "neuroflux/report/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace nf::report {
namespace {

// Three digits, without zeros that say nothing behind a whole number of this size.
std::string three_digits(double value) {
  const double size = std::abs(value);
  std::string text = fmt::format("{:.{}f}", value, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
  if (text.find('.') == std::string::npos) return text;
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

struct Unit {
  double size;  // in the base unit
  const char* name;
  double from;  // smallest value that it is used for
};

// Ascending; a value takes the last one that is not too large for it.
constexpr std::array kCounts{Unit{1.0, "", 0.0}, Unit{1e3, "k", 999.5}, Unit{1e6, "M", 999.5e3},
                             Unit{1e9, "G", 999.5e6}, Unit{1e12, "T", 999.5e9}};
constexpr std::array kTimes{Unit{1e-6, "µs", 0.0}, Unit{1e-3, "ms", 0.9995e-3},
                            Unit{1.0, "s", 0.9995}, Unit{60.0, "min", 120.0},
                            Unit{3600.0, "h", 7200.0}};
constexpr std::array kBytes{Unit{1.0, "B", 0.0}, Unit{0x1p10, "KiB", 0x1p10},
                            Unit{0x1p20, "MiB", 0x1p20}, Unit{0x1p30, "GiB", 0x1p30}};

template <std::size_t N>
const Unit& unit_of(double value, const std::array<Unit, N>& units) {
  if (value == 0.0)  // "0 s", not "0 µs"
    return *std::ranges::find(units, 1.0, &Unit::size);
  const Unit* chosen = &units.front();
  for (const Unit& unit : units)
    if (std::abs(value) >= unit.from) chosen = &unit;
  return *chosen;
}

std::string with_name(const std::string& text, const Unit& unit) {
  return *unit.name == '\0' ? text : text + ' ' + unit.name;
}

std::string in_unit(double value, const Unit& unit) {
  return with_name(three_digits(value / unit.size), unit);
}

std::string spread_text(const std::optional<Spread>& spread, const Unit& unit) {
  if (!spread) return "–";
  const double mean = spread->mean / unit.size, deviation = spread->deviation / unit.size;
  if (spread->deviation == 0.0) return with_name(three_digits(mean), unit);
  const int digits = std::abs(mean) < 9.995 ? 2 : std::abs(mean) < 99.95 ? 1 : 0;
  return with_name(fmt::format("{:.{}f} ± {:.{}f}", mean, digits, deviation, digits), unit);
}

}  // namespace

std::string format_count(double count) { return in_unit(count, unit_of(count, kCounts)); }

std::string format_seconds(double seconds) { return in_unit(seconds, unit_of(seconds, kTimes)); }

std::string format_percent(double fraction, int digits) {
  return fmt::format("{:.{}f} %", fraction * 100.0, digits);
}

std::string seconds_text(const std::optional<Spread>& spread) {
  return spread_text(spread, unit_of(spread ? spread->mean : 0.0, kTimes));
}

std::string count_text(const std::optional<Spread>& spread) {
  return spread_text(spread, unit_of(spread ? spread->mean : 0.0, kCounts));
}

std::string bytes_text(const std::optional<Spread>& spread) {
  return spread_text(spread, unit_of(spread ? spread->mean : 0.0, kBytes));
}

std::string percent_text(const std::optional<Spread>& spread) {
  if (!spread) return "–";
  if (spread->deviation == 0.0) return format_percent(spread->mean, 2);
  return fmt::format("{:.2f} ± {:.2f} %", spread->mean * 100.0, spread->deviation * 100.0);
}

std::string shortened(const std::string& text, std::size_t characters) {
  std::size_t seen = 0, keep = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    if (seen + 1 == characters) keep = i;
    if (++seen > characters) return text.substr(0, keep) + "…";
  }
  return text;
}

}  // namespace nf::report
