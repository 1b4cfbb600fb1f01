// Hashes by which files and what they were made from are known again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nf {

/// XXH3, 64 bits.
std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed = 0);
std::uint64_t hash_text(std::string_view text, std::uint64_t seed = 0);

/// 16 hexadecimal digits.
std::string to_hex(std::uint64_t hash);

}  // namespace nf
