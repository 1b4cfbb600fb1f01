#include "tools/config_file.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "engine/text.h"
#include "tools/errors.h"

namespace nf::tools {
namespace {

bool is_key_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_bare(const std::string& text) {
  if (text == "true" || text == "false") return true;
  if (text.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  double number = 0.0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  return status == std::errc{} && end == text.data() + text.size();
}

/// Reads one line; complaints begin with `where`.
class LineReader {
 public:
  LineReader(const std::string& line, std::string where) : line_(line), where_(std::move(where)) {}

  bool blank() {
    skip_spaces();
    return at_ == line_.size() || line_[at_] == '#';
  }

  std::string key() {
    if (peek() == '[') complain("tables are not known here; write keys alone");
    std::string name;
    while (at_ < line_.size() && is_key_char(line_[at_])) name += line_[at_++];
    skip_spaces();
    if (name.empty() || peek() != '=') complain("must read key = value");
    ++at_;
    return name;
  }

  std::string value() {
    skip_spaces();
    std::string text = peek() == '[' ? array() : scalar();
    if (!blank()) complain("nothing may follow the value");
    return text;
  }

 private:
  char peek() const { return at_ < line_.size() ? line_[at_] : '\0'; }
  void skip_spaces() {
    while (at_ < line_.size() && std::isspace(static_cast<unsigned char>(line_[at_])) != 0) ++at_;
  }
  [[noreturn]] void complain(const char* rule) const {
    fail_usage("{}: {}, got \"{}\"", where_, rule, line_);
  }

  std::string array() {
    std::string text;
    ++at_;
    for (skip_spaces(); peek() != ']'; skip_spaces()) {
      text += (text.empty() ? "" : ",") + scalar();
      skip_spaces();
      if (peek() == ',') {
        ++at_;
      } else if (peek() != ']') {
        complain("an array must end in ] on its line");
      }
    }
    ++at_;
    return text;
  }

  std::string scalar() {
    if (peek() == '"' || peek() == '\'') return quoted(line_[at_++]);
    std::string text;
    while (at_ < line_.size() &&
           (is_key_char(line_[at_]) || line_[at_] == '.' || line_[at_] == '+'))
      text += line_[at_++];
    std::erase(text, '_');
    if (!is_bare(text)) complain("a value must be a number, true, false or text in quotes");
    return text;
  }

  std::string quoted(char quote) {
    std::string text;
    while (peek() != quote) {
      if (at_ == line_.size()) complain("a quote must be closed");
      if (quote == '"' && peek() == '\\') {
        ++at_;
        const std::size_t escape = std::string_view("\"\\nt").find(peek());
        if (at_ == line_.size() || escape == std::string_view::npos)
          complain(R"(only \", \\, \n and \t are known after a backslash)");
        text += "\"\\\n\t"[escape];
      } else {
        text += line_[at_];
      }
      ++at_;
    }
    ++at_;
    return text;
  }

  const std::string& line_;
  std::string where_;
  std::size_t at_ = 0;
};

std::string toml_value(const std::string& text) {
  if (is_bare(text)) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    const std::size_t escape = std::string_view("\"\\\n\t").find(c);
    quoted +=
        escape == std::string_view::npos ? std::string(1, c) : std::string("\\") + "\"\\nt"[escape];
  }
  return quoted + '"';
}

}  // namespace

std::vector<CLI::ConfigItem> ConfigReader::from_config(std::istream& input) const {
  const std::string file = app_.get_config_ptr()->results().back();
  const std::vector<std::string> known = config_keys(app_);
  std::vector<CLI::ConfigItem> items;
  std::vector<std::string> seen;
  std::string line;
  for (std::int64_t number = 1; std::getline(input, line); ++number) {
    const std::string where = fmt::format("{} line {}", file, number);
    LineReader reader(line, where);
    if (reader.blank()) continue;
    CLI::ConfigItem item;
    item.name = reader.key();
    item.inputs = {reader.value()};
    if (contains(seen, item.name)) fail_usage("{}: key {} is given twice", where, item.name);
    seen.push_back(item.name);
    if (contains(known, item.name)) {
      items.push_back(std::move(item));
    } else if (!contains(other_keys_, item.name)) {
      fail_usage("{}: unknown key {}; did you mean {}?", where, item.name,
                 nearest_name(item.name, known));
    }
  }
  return items;
}

std::string ConfigReader::to_config(const CLI::App* app, bool, bool, std::string) const {
  return config_text(*app, {});
}

std::vector<std::string> config_keys(const CLI::App& app) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : app.get_options())
    if (option->get_configurable() && !option->get_lnames().empty())
      keys.push_back(option->get_lnames().front());
  return keys;
}

std::string config_text(const CLI::App& app, const std::vector<std::string>& left_out) {
  std::string text;
  for (const std::string& key : config_keys(app)) {
    if (contains(left_out, key)) continue;
    const CLI::Option& option = *app.get_option("--" + key);
    const bool flag = option.get_expected_min() == 0;
    std::string value = flag ? "false" : option.get_default_str();
    if (option.count() > 0) value = option.results().back();
    if (!value.empty()) text += fmt::format("{} = {}\n", key, toml_value(value));
  }
  return text;
}

std::string with_value(const std::string& text, const std::string& key, const std::string& value) {
  const std::string begin = key + " = ";
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    const std::string line = text.substr(at, end - at);
    result += line.starts_with(begin) ? begin + toml_value(value) + '\n' : line;
    at = end;
  }
  return result;
}

}  // namespace nf::tools
