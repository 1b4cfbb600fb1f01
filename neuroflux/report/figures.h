// Figures for people. engine/text.h has bytes.
#pragma once

#include <optional>
#include <string>

#include "neuroflux/comparison.h"

namespace nf::report {

/// "950", "12.3 k", "2.31 M", "15 G": three digits.
std::string format_count(double count);
/// "350 ms", "12.3 s", "4.2 min", "1.5 h".
std::string format_seconds(double seconds);
/// "87.3 %" of a fraction.
std::string format_percent(double fraction, int digits = 1);

/// "12.3 s ± 0.4 s", without the deviation of a single value; a dash where there is no value.
template <typename Format>
std::string format_spread(const std::optional<Spread>& spread, const Format& format) {
  if (!spread) return "–";
  return format(spread->mean) + (spread->count > 1 ? " ± " + format(spread->deviation) : "");
}

/// At most `characters` of them, the last one an ellipsis where some were left out.
std::string shortened(const std::string& text, std::size_t characters);

}  // namespace nf::report
