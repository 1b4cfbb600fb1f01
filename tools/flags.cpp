#include "tools/flags.h"

#include <charconv>
#include <cmath>

#include "engine/text.h"
#include "tools/errors.h"

namespace nf::tools {
namespace {

constexpr std::int64_t kMaxExtent = 65536;

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void check_known(const std::string& name, const std::vector<std::string>& known) {
  for (const std::string& candidate : known)
    if (name == candidate) return;
  fail("must be one of {}, got \"{}\"; did you mean {}?", joined(known), name,
       nearest_name(name, known));
}

}  // namespace

bool Interval::holds(double value) const {
  return (open_least ? value > least : value >= least) &&
         (open_most ? value < most : value <= most);
}

std::string Interval::str() const {
  const bool unbounded = std::isinf(most);
  return fmt::format("{}{}, {}{}", open_least ? '(' : '[', least,
                     unbounded ? "infinity" : fmt::format("{}", most),
                     open_most || unbounded ? ')' : ']');
}

template <typename Integer>
Integer parse_whole(std::string_view text, Integer least, Integer most) {
  Integer value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = status == std::errc{} && end == text.data() + text.size();
  const bool bounded = most != std::numeric_limits<Integer>::max();
  NF_CHECK(whole && value >= least && value <= most,
           "must be a whole number of at least {}{}, got \"{}\"", least,
           bounded ? fmt::format(" and at most {}", most) : "", text);
  return value;
}
template int parse_whole(std::string_view, int, int);
template std::int64_t parse_whole(std::string_view, std::int64_t, std::int64_t);
template std::uint64_t parse_whole(std::string_view, std::uint64_t, std::uint64_t);

double parse_real(const std::string& text, const Interval& interval) {
  double value = 0.0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  NF_CHECK(status == std::errc{} && end == text.data() + text.size() && std::isfinite(value) &&
               interval.holds(value),
           "must be a number in {}, got \"{}\"", interval.str(), text);
  return value;
}

Shape parse_extents(const std::string& text) {
  std::vector<std::int64_t> extents;
  try {
    std::size_t begin = 0;
    while (begin <= text.size()) {
      const std::size_t end = std::min(text.find('x', begin), text.size());
      extents.push_back(parse_whole(std::string_view(text).substr(begin, end - begin),
                                    std::int64_t{1}, kMaxExtent));
      begin = end + 1;
    }
  } catch (const Error&) {
    extents.clear();
  }
  NF_CHECK(extents.size() == 3,
           "must be HEIGHTxWIDTHxCHANNELS, each from 1 to {}, as in 32x32x3, got \"{}\"",
           kMaxExtent, text);
  return Shape(extents);
}

std::vector<std::string> parse_names(const std::string& text,
                                     const std::vector<std::string>& known) {
  std::vector<std::string> names;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    check_known(name, known);
    for (const std::string& earlier : names)
      NF_CHECK(earlier != name, "must not name {} twice, got \"{}\"", name, text);
    names.push_back(name);
    begin = end + 1;
  }
  return names;
}

CLI::Option* Flags::parsed(const std::string& name, const std::string& type,
                           const std::string& shown_default, const std::string& help,
                           std::function<void(const std::string&)> read) {
  const auto checked = [name, read = std::move(read)](const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      fail_usage("{}: {}", name, error.what());
    }
  };
  return app_.add_option_function<std::string>(name, checked, help)
      ->type_name(type)
      ->default_str(shown_default)
      ->group(group_);
}

CLI::Option* Flags::text(const std::string& name, const std::string& type, std::string& target,
                         const std::string& help) {
  return parsed(name, type, target, help, [&target](const std::string& text) {
    NF_CHECK(!text.empty(), "must not be empty");
    target = text;
  });
}

CLI::Option* Flags::choice(const std::string& name, std::string& target,
                           const std::vector<std::string>& known, const std::string& help) {
  return parsed(name, "NAME", target, help + ": " + joined(known),
                [&target, known](const std::string& text) {
                  check_known(text, known);
                  target = text;
                });
}

CLI::Option* Flags::real(const std::string& name, double& target, const Interval& interval,
                         const std::string& help) {
  return parsed(
      name, "X", fmt::format("{}", target), help,
      [&target, interval](const std::string& text) { target = parse_real(text, interval); });
}

CLI::Option* Flags::toggle(const std::string& name, bool& target, const std::string& help) {
  return app_.add_flag(name, target, help)->group(group_);
}

}  // namespace nf::tools
