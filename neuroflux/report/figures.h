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

/// "12.3 ± 0.4 s", "2.31 ± 0.02 M", "87.30 ± 0.41 %", "17.6 ± 0.2 MiB": in the unit of the mean,
/// without a deviation of 0, as of a single value; a dash where there is none.
std::string seconds_text(const std::optional<Spread>& spread);
std::string count_text(const std::optional<Spread>& spread);
std::string percent_text(const std::optional<Spread>& spread);
std::string bytes_text(const std::optional<Spread>& spread);

/// At most `characters` of them, the last one an ellipsis where some were left out.
std::string shortened(const std::string& text, std::size_t characters);

}  // namespace nf::report
