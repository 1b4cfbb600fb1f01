#include "neuroflux/json_value.h"

#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace nf {

using nlohmann::json;

JsonValue::JsonValue(std::shared_ptr<const json> document, const json* value, std::string file,
                     std::string place)
    : document_(std::move(document)),
      value_(value),
      file_(std::move(file)),
      place_(std::move(place)) {}

JsonValue JsonValue::read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.good() && !in.eof()) throw DataError(fmt::format("{}: can't be read", path.string()));
  return parse(text, path.string());
}

JsonValue JsonValue::parse(const std::string& text, const std::string& name) {
  auto document = std::make_shared<const json>(json::parse(text, nullptr, false));
  const json* const root = document.get();
  const JsonValue value(std::move(document), root, name, "");
  if (root->is_discarded()) value.fail("is not JSON, or only the beginning of it");
  if (!root->is_object()) value.fail("is not a JSON object");
  return value;
}

void JsonValue::fail(const std::string& what) const {
  throw DataError(fmt::format("{}: {}{}{}", file_, place_, place_.empty() ? "" : " ", what));
}

std::optional<JsonValue> JsonValue::find(const std::string& key) const {
  if (!value_->is_object()) fail("is not an object");
  const auto member = value_->find(key);
  if (member == value_->end() || member->is_null()) return std::nullopt;
  return JsonValue(document_, &*member, file_, place_.empty() ? key : place_ + '.' + key);
}

JsonValue JsonValue::at(const std::string& key) const {
  std::optional<JsonValue> member = find(key);
  if (!member) fail(fmt::format("has no {}", key));
  return std::move(*member);
}

std::vector<JsonValue> JsonValue::list() const {
  if (!value_->is_array()) fail("is not a list");
  std::vector<JsonValue> values;
  for (const json& value : *value_)
    values.push_back(
        JsonValue(document_, &value, file_, fmt::format("{}[{}]", place_, values.size())));
  return values;
}

std::string JsonValue::text() const {
  if (!value_->is_string()) fail("is not a text");
  return value_->get<std::string>();
}

bool JsonValue::truth() const {
  if (!value_->is_boolean()) fail("is neither true nor false");
  return value_->get<bool>();
}

std::int64_t JsonValue::whole(std::int64_t least) const {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const bool fits = value_->is_number_integer() &&
                    (!value_->is_number_unsigned() || value_->get<std::uint64_t>() <= kMost);
  if (!fits) fail(fmt::format("is {}; it must be a whole number", value_->dump()));
  if (value_->get<std::int64_t>() < least)
    fail(fmt::format("is {}; it must be at least {}", value_->dump(), least));
  return value_->get<std::int64_t>();
}

std::uint64_t JsonValue::natural() const {
  if (!value_->is_number_unsigned())
    fail(fmt::format("is {}; it must be a whole number from 0 on", value_->dump()));
  return value_->get<std::uint64_t>();
}

double JsonValue::real(double least, double most) const {
  if (!value_->is_number()) fail(fmt::format("is {}; it must be a number", value_->dump()));
  const auto number = value_->get<double>();
  if (!(number >= least && number <= most))
    fail(fmt::format("is {}; it must be in [{}, {}]", value_->dump(), least, most));
  return number;
}

}  // namespace nf
