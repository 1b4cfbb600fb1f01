// Reading and writing what people type: sizes in bytes, and the name they probably meant.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nf {

/// The candidate with the least edit distance to `value`, the first of equals; empty where there
/// are no candidates.
std::string nearest_name(std::string_view value, std::span<const std::string> candidates);

/// "64MiB", "64M", "1.5GiB", "4096". K, M, G and T, alone or as KiB …, are powers of 1024; KB, MB …
/// powers of 1000; a fraction of a byte is dropped. Throws Error naming the text and the rule for
/// anything else, for less than one byte and for more than 63 bits hold.
std::int64_t parse_bytes(std::string_view text);

/// "512 B", "64.0 MiB"; negative values keep their sign.
std::string format_bytes(std::int64_t bytes);
/// The same, rounded up: read back by parse_bytes it is no less than `bytes`. Not negative.
std::string format_bytes_up(std::int64_t bytes);

}  // namespace nf
