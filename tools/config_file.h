// Configuration files: TOML without tables, with the flags' names as keys.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace nf::tools {

/// Reads keys of one line each: strings, numbers, booleans and arrays of these (which become one
/// text with commas). Keys that only other commands know are passed over, so that one file serves
/// all. Throws UsageError naming file and line, with the nearest name for an unknown key.
class ConfigReader : public CLI::Config {
 public:
  ConfigReader(const CLI::App& app, std::vector<std::string> other_keys)
      : app_(app), other_keys_(std::move(other_keys)) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;
  std::string to_config(const CLI::App* app, bool, bool, std::string) const override;

 private:
  const CLI::App& app_;
  std::vector<std::string> other_keys_;
};

/// The long names of an app's options that a file may set.
std::vector<std::string> config_keys(const CLI::App& app);

/// All that a file may set, as it was parsed or by default, except `left_out`.
std::string config_text(const CLI::App& app, const std::vector<std::string>& left_out);

/// The text with another value for a key that it has.
std::string with_value(const std::string& text, const std::string& key, const std::string& value);

}  // namespace nf::tools
