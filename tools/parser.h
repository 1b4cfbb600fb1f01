// The flags of each command, and the options that they write to; parse_command_line's own.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "tools/flags.h"
#include "tools/options.h"

namespace nf::tools {

/// The app of one command with what its flags write to.
class Parser {
 public:
  explicit Parser(Command command);
  std::variant<CommandLine, HelpText> parse(const std::vector<std::string>& arguments,
                                            std::vector<std::string> other_keys);
  const CLI::App& app() const { return app_; }

 private:
  void add_net();
  void add_data();
  void add_shape();
  void add_method();
  void add_optimizer();
  void add_training();
  void add_schedule();
  void add_exits();
  void add_device();
  void add_output();
  void add_export();
  void add_kernels();
  void add_report();
  void finish();
  [[noreturn]] void fail_unknown() const;

  bool trains() const { return command() == Command::train || command() == Command::compare; }
  Command command() const { return line_.command; }

  CLI::App app_;
  Flags flags_{app_};
  CommandLine line_;
  ExperimentOptions& options_ = line_.options;
  // What the library wants in another form.
  bool without_onednn_ = false;
  bool without_early_stop_ = false;
  bool cache_buffered_ = false;
  bool without_checkpoints_ = false;
  DataShape shape_;
  std::int64_t train_images_ = 50000;
  std::string storage_ = "f32";
  std::vector<CLI::Option*> shape_flags_;
  CLI::Option* profile_flag_ = nullptr;
};

}  // namespace nf::tools
