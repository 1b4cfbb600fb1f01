// Typed flags on a CLI11 app: each shows its default in the help, and names its rule and the value
// in a UsageError when a value breaks it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "engine/shape.h"

namespace nf::tools {

/// Real numbers from `least` to `most`; an open end is not among them.
struct Interval {
  double least = 0.0;
  double most = std::numeric_limits<double>::infinity();
  bool open_least = false;
  bool open_most = false;

  bool holds(double value) const;
  std::string str() const;  ///< "[0, 1)"
};

/// "32x32x3" -> (H, W, C), each extent from 1 to 65536. Throws Error naming text and rule.
Shape parse_extents(const std::string& text);

/// Adds flags to an app, in groups under which the help lists them. The targets must outlive the
/// parsing.
class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}

  void group(std::string name) { group_ = std::move(name); }

  /// A flag whose text `read` takes; an Error it throws becomes a UsageError that names the flag.
  CLI::Option* parsed(const std::string& name, const std::string& type,
                      const std::string& shown_default, const std::string& help,
                      std::function<void(const std::string&)> read);
  CLI::Option* text(const std::string& name, const std::string& type, std::string& target,
                    const std::string& help);
  CLI::Option* choice(const std::string& name, std::string& target,
                      const std::vector<std::string>& known, const std::string& help);
  CLI::Option* real(const std::string& name, double& target, const Interval& interval,
                    const std::string& help);
  CLI::Option* toggle(const std::string& name, bool& target, const std::string& help);

  template <typename Integer>
  CLI::Option* whole(const std::string& name, Integer& target, Integer least,
                     const std::string& help, Integer most = std::numeric_limits<Integer>::max());

 private:
  CLI::App& app_;
  std::string group_ = "Options";
};

/// A whole number in [least, most] from all of `text`. Throws Error naming rule and text.
template <typename Integer>
Integer parse_whole(std::string_view text, Integer least, Integer most);

/// A finite number in the interval from all of `text`. Throws Error naming rule and text.
double parse_real(const std::string& text, const Interval& interval);

/// Names separated by commas. Throws Error for one that is not known, with the nearest, and for one
/// that comes twice.
std::vector<std::string> parse_names(const std::string& text,
                                     const std::vector<std::string>& known);

template <typename Integer>
CLI::Option* Flags::whole(const std::string& name, Integer& target, Integer least,
                          const std::string& help, Integer most) {
  return parsed(
      name, "N", std::to_string(target), help,
      [&target, least, most](const std::string& text) { target = parse_whole(text, least, most); });
}

}  // namespace nf::tools
