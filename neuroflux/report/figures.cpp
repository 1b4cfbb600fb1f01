#include "neuroflux/report/figures.h"

#include <fmt/format.h>

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

}  // namespace

std::string format_count(double count) {
  constexpr std::array<const char*, 5> units{"", " k", " M", " G", " T"};
  std::size_t unit = 0;
  for (; unit + 1 < units.size() && std::abs(count) >= 999.5; ++unit) count /= 1000.0;
  return three_digits(count) + units[unit];
}

std::string format_seconds(double seconds) {
  if (seconds == 0.0) return "0 s";
  if (seconds < 0.9995e-3) return three_digits(seconds * 1e6) + " µs";
  if (seconds < 0.9995) return three_digits(seconds * 1e3) + " ms";
  if (seconds < 120.0) return three_digits(seconds) + " s";
  if (seconds < 7200.0) return three_digits(seconds / 60.0) + " min";
  return three_digits(seconds / 3600.0) + " h";
}

std::string format_percent(double fraction, int digits) {
  return fmt::format("{:.{}f} %", fraction * 100.0, digits);
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
