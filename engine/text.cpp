#include "engine/text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "engine/error.h"

namespace nf {
namespace {

constexpr std::array<const char*, 7> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Bytes of a unit in upper case, 0 for one that is not known.
std::int64_t unit_bytes(std::string_view unit) {
  if (unit.empty() || unit == "B") return 1;
  const std::size_t power = std::string_view("KMGT").find(unit[0]);
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = unit.substr(1);
  if (rest != "" && rest != "B" && rest != "IB") return 0;
  std::int64_t bytes = 1;
  for (std::size_t i = 0; i <= power; ++i) bytes *= rest == "B" ? 1000 : 1024;
  return bytes;
}

}  // namespace

std::string nearest_name(std::string_view value, std::span<const std::string> candidates) {
  std::string best;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(value, candidate);
    if (distance >= least) continue;
    least = distance;
    best = candidate;
  }
  return best;
}

std::int64_t parse_bytes(std::string_view text) {
  const auto reject = [&](const char* rule) { fail("bytes: {}, got \"{}\"", rule, text); };
  std::size_t whole = 0;
  while (whole < text.size() && is_digit(text[whole])) ++whole;
  std::size_t end = whole;
  if (end < text.size() && text[end] == '.') {
    ++end;
    while (end < text.size() && is_digit(text[end])) ++end;
    if (end == whole + 1) reject("digits must follow the point");
  }
  if (whole == 0) reject("a size must begin with a digit, as in 64MiB");
  std::int64_t integer = 0;
  if (std::from_chars(text.data(), text.data() + whole, integer).ec != std::errc{})
    reject("a size must fit in 63 bits");
  double fraction = 0;
  if (end > whole) {
    const std::string digits = fmt::format("0{}", text.substr(whole, end - whole));
    std::from_chars(digits.data(), digits.data() + digits.size(), fraction);
  }

  std::size_t start = end;
  while (start < text.size() && text[start] == ' ') ++start;
  std::string unit(text.substr(start));
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  const std::int64_t scale = unit_bytes(unit);
  if (scale == 0)
    reject("the unit must be B, K, M, G or T, alone (times 1024), with iB (1024) or B (1000)");
  const auto part = static_cast<std::int64_t>(fraction * static_cast<double>(scale));
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(integer, scale, &bytes) || __builtin_add_overflow(bytes, part, &bytes))
    reject("a size must fit in 63 bits");
  if (bytes == 0) reject("a size must be at least one byte");
  return bytes;
}

std::string format_bytes_up(std::int64_t bytes) {
  if (bytes < 1024) return format_bytes(bytes);
  // In whole numbers: a tenth that a double rounds down would be one that does not fit.
  std::size_t unit = 1;
  std::int64_t size = 1024;
  while (bytes / size >= 1024 && unit + 1 < kUnits.size()) {
    size *= 1024;
    ++unit;
  }
  const std::int64_t whole = bytes / size;
  const double tenths =
      std::ceil(static_cast<double>(bytes % size) * 10 / static_cast<double>(size));
  if (tenths < 10) return fmt::format("{}.{:.0f} {}", whole, tenths, kUnits[unit]);
  return fmt::format("{}.0 {}", whole + 1, kUnits[unit]);
}

std::string format_bytes(std::int64_t bytes) {
  double value = static_cast<double>(bytes);
  if (std::abs(value) < 1024) return fmt::format("{} B", bytes);
  std::size_t unit = 0;
  // What would round to 1024.0 belongs to the next unit.
  while (std::abs(value) >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace nf
