// A JSON document from a file that anyone may have damaged: every value knows where it stands, so
// that what is wrong with it can be said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace nf {

/// Far beyond any training, and products of two such numbers are still finite.
inline constexpr double kMostSeconds = 1e12;
/// More images or bytes a second, or joules, than any machine has.
inline constexpr double kMostSpeed = 1e15;

/// A value in a document. All throw DataError naming the file, the place as "methods[2].name"
/// (counted from 0), and what is wrong there.
class JsonValue {
 public:
  /// Reads the whole file, which must hold one JSON object.
  static JsonValue read(const std::filesystem::path& path);
  /// The same of a text, with `name` for the file's.
  static JsonValue parse(const std::string& text, const std::string& name);

  /// A member that must be there.
  JsonValue at(const std::string& key) const;
  /// A member that may be absent or null.
  std::optional<JsonValue> find(const std::string& key) const;
  std::vector<JsonValue> list() const;

  std::string text() const;
  bool truth() const;
  /// A whole number from `least` on.
  std::int64_t whole(std::int64_t least = 0) const;
  /// One of 64 bits without a sign: a seed.
  std::uint64_t natural() const;
  /// A finite number in [least, most].
  double real(double least, double most) const;

  [[noreturn]] void fail(const std::string& what) const;

 private:
  JsonValue(std::shared_ptr<const nlohmann::json> document, const nlohmann::json* value,
            std::string file, std::string place);

  std::shared_ptr<const nlohmann::json> document_;  // keeps value_ alive
  const nlohmann::json* value_;
  std::string file_, place_;
};

}  // namespace nf
