#include "tools/options.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/text.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"
#include "tools/config_file.h"
#include "tools/errors.h"
#include "tools/parser.h"
#include "tools/run_folder.h"

namespace nf::tools {
namespace {

constexpr std::array kCommands{Command::plan,   Command::train,       Command::compare,
                               Command::eval,   Command::export_exit, Command::report,
                               Command::kernels};

constexpr std::int64_t kMaxEmulated = std::int64_t{1} << 28;  // elements: minutes a kernel

struct CommandText {
  const char* description;
  const char* example;
};

CommandText text_of(Command command) {
  switch (command) {
    case Command::plan:
      return {
          "Tells what a training would take: batches, blocks and exact memory peaks.\n"
          "Nothing runs on the device, and with --input no data is needed.",
          "neuroflux plan --model vgg16 --input 32x32x3 --classes 10 --budget 64MiB"};
    case Command::train:
      return {"Trains a net by one method under the budget and leaves a run folder.",
              "neuroflux train --method neuroflux --model vgg11 --data bench/data/fashion-mnist-6k "
              "--budget 64MiB"};
    case Command::compare:
      return {
          "Trains a net by several methods under one budget and compares them.\n"
          "They get the same images, split and initial values, and leave one run folder.",
          "neuroflux compare --methods bp,neuroflux --model vgg11 --width 0.5 "
          "--data bench/data/fashion-mnist-6k --budget 36MiB"};
    case Command::eval:
      return {"Evaluates saved weights on a data set's test images.",
              "neuroflux eval runs/first/neuroflux.safetensors --data "
              "bench/data/fashion-mnist-6k"};
    case Command::export_exit:
      return {
          "Writes another exit of a finished run than the one that it delivered.\n"
          "The run folder stays as it is. Test accuracy is known of the delivered exit alone;\n"
          "eval tells that of others.",
          "neuroflux export runs/first --exit-accuracy 0.88 --out compact.safetensors"};
    case Command::report:
      return {
          "Draws what runs came to on one HTML page, which needs nothing else to be looked at.\n"
          "Runs that differ only in methods, budget and seed are taken together.",
          "neuroflux report runs/first runs/second --out comparison.html"};
    case Command::kernels:
      return {
          "Tells what each GPU kernel does with memory, as the emulator sees it; no GPU is used.\n"
          "Each launcher runs once on a tensor of the given size, watched for races and accesses\n"
          "out of range. A request is one instruction of one warp, a sector 32 bytes; must is "
          "what\n"
          "the maths has to read and write, moved all sectors of all requests, whether a cache\n"
          "serves them or not, footprint each sector once. kernels/README.md tells more.",
          "neuroflux kernels --kernel batch_norm --channels 48 --dtype bf16"};
  }
  return {"", ""};
}

/// CLI11 leaves two lines between groups.
std::string without_double_gaps(std::string text) {
  for (std::size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  return text;
}

/// The arguments that a run was begun with, for one that is to go on.
std::vector<std::string> arguments_of(const StartedRun& run, const std::filesystem::path& folder) {
  std::vector<std::string> arguments{"--config",  (folder / "config.toml").string(),
                                     "--run-dir", folder.string(),
                                     "--data",    run.data};
  if (!run.cache_folder.empty())
    arguments.insert(arguments.end(), {"--cache-dir", run.cache_folder});
  return arguments;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

Parser::Parser(Command command)
    : app_(text_of(command).description, fmt::format("neuroflux {}", to_string(command))) {
  line_.command = command;
  options_.methods = command == Command::train ? std::vector<std::string>{"neuroflux"}
                                               : std::vector<std::string>{"bp", "neuroflux"};
  app_.get_formatter()->column_width(34);
  app_.get_help_ptr()->configurable(false)->description("This text");
  app_.footer(fmt::format("Example:\n  {}", text_of(command).example));
  if (command == Command::kernels) {
    add_kernels();
    return;
  }
  if (command == Command::report) {
    add_report();
    return;
  }
  if (command == Command::export_exit) {
    add_export();
    return;
  }
  if (command == Command::eval) {
    app_.add_option_function<std::string>(
            "WEIGHTS", [this](const std::string& path) { line_.weights = path; },
            "File of weights that train or compare left in its run folder")
        ->required()
        ->configurable(false)
        ->type_name("FILE");
  } else {
    add_net();
  }
  add_data();
  if (command == Command::plan) add_shape();
  add_method();
  if (command != Command::eval) {
    add_optimizer();
    add_training();
  }
  add_device();
  add_output();
}

std::variant<CommandLine, HelpText> Parser::parse(const std::vector<std::string>& arguments,
                                                  std::vector<std::string> other_keys) {
  app_.config_formatter(std::make_shared<ConfigReader>(app_, std::move(other_keys)));
  app_.allow_extras();
  try {
    app_.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return HelpText{without_double_gaps(app_.help())};
  } catch (const CLI::RequiredError& error) {
    if (app_.remaining_size() > 0) fail_unknown();
    fail_usage("{}", one_line(error.what()));
  } catch (const CLI::FileError&) {
    fail_usage("--config: can't read {}", app_.get_config_ptr()->results().back());
  } catch (const CLI::ParseError& error) {
    fail_usage("{}", one_line(error.what()));
  }
  if (app_.remaining_size() > 0) fail_unknown();
  finish();
  return std::move(line_);
}

void Parser::fail_unknown() const {
  const std::vector<std::string> extras = app_.remaining();
  const auto flag = std::find_if(extras.begin(), extras.end(),
                                 [](const std::string& text) { return text.starts_with('-'); });
  if (flag == extras.end()) fail_usage("unexpected argument \"{}\"", extras.front());
  const std::string name = flag->substr(0, flag->find('='));
  std::vector<std::string> known;
  for (const CLI::Option* option : app_.get_options())
    for (const std::string& long_name : option->get_lnames()) known.push_back("--" + long_name);
  fail_usage("unknown flag {}; did you mean {}?", name, nearest_name(name, known));
}

void Parser::finish() {
  if (command() == Command::report) return;
  if (command() == Command::export_exit) {
    const ExitWanted& wanted = line_.wanted_exit;
    if ((wanted.unit > 0) == (wanted.accuracy > 0.0))
      fail_usage("export needs --exit N or --exit-accuracy X, and not both");
    return;
  }
  if (command() == Command::kernels) {
    CatalogueSizes& sizes = line_.kernels.sizes;
    for (const StorageType storage : {StorageType::f32, StorageType::bf16, StorageType::f16})
      if (storage_ == to_string(storage)) sizes.storage = storage;
    if (sizes.n * sizes.h > kMaxEmulated / sizes.w / sizes.c)
      fail_usage("--batch, --height, --width, --channels: {}x{}x{}x{} is more than {} elements",
                 sizes.n, sizes.h, sizes.w, sizes.c, kMaxEmulated);
    return;
  }
  options_.device.onednn = !without_onednn_;
  // The emulator's steps take minutes and say nothing of a GPU's.
  if (profile_flag_ != nullptr && profile_flag_->count() == 0)
    options_.profile = trains() && options_.device.device.kind != DeviceKind::simt;
  if (options_.device.graphs.value_or(false) && options_.device.device.kind == DeviceKind::cpu)
    fail_usage("--graphs: on is for --device cuda and simt, not for cpu");
  options_.training.stop_when_saturated = !without_early_stop_;
  options_.training.cache_storage.direct = !cache_buffered_;
  options_.checkpoints = !without_checkpoints_;
  options_.data_options.seed = options_.training.seed;
  std::vector<std::string> left_out{"run-dir", "cache-dir", "trace"};
  if (profile_flag_ != nullptr && profile_flag_->count() == 0) left_out.emplace_back("profile");
  options_.config_text = config_text(app_, left_out);
  if (!line_.budgets.empty() && command() == Command::plan)
    for (const char* flag : {"--save", "--explain", "--trace"})
      if (app_.get_option(flag)->count() > 0)
        fail_usage("{}: goes with one --budget, not with the table that --budgets makes", flag);
  if (command() == Command::plan) {
    const bool by_hand = std::any_of(shape_flags_.begin(), shape_flags_.end(),
                                     [](const CLI::Option* flag) { return flag->count() > 0; });
    if (by_hand || options_.data.empty()) {
      shape_.validation_count = std::llround(options_.data_options.validation_fraction *
                                             static_cast<double>(train_images_));
      shape_.train_count = train_images_ - shape_.validation_count;
      if (shape_.train_count < 1)
        fail_usage("--validation-fraction: {} of {} images leaves none to train on",
                   options_.data_options.validation_fraction, train_images_);
      line_.data = shape_;
    }
  } else if (options_.data.empty() && line_.resumed.empty()) {
    fail_usage("{} needs --data FOLDER or --data generated", to_string(command()));
  }
  const std::filesystem::path folder = options_.trace.parent_path();
  if (!folder.empty() && folder != options_.run_folder && !std::filesystem::is_directory(folder))
    fail_usage("--trace: there is no folder {}", folder.string());
  try {
    check_experiment(options_);
    if (command() != Command::eval)
      nn::joined_unit_sizes(*nn::make_model(options_.model, {}), options_.units);
  } catch (const Error& error) {
    fail_usage("{}", error.what());
  }
}

const char* to_string(Command command) {
  constexpr std::array names{"plan", "train", "compare", "eval", "export", "report", "kernels"};
  return names[static_cast<std::size_t>(command)];
}

Command parse_command(const std::string& name) {
  std::vector<std::string> known;
  for (const Command command : kCommands) {
    if (name == to_string(command)) return command;
    known.emplace_back(to_string(command));
  }
  fail_usage("unknown command \"{}\"; did you mean {}?", name, nearest_name(name, known));
}

std::variant<CommandLine, HelpText> parse_command_line(Command command,
                                                       const std::vector<std::string>& arguments) {
  std::vector<std::string> all_keys;
  for (const Command other : kCommands)
    for (const std::string& key : config_keys(Parser(other).app())) all_keys.push_back(key);
  auto parsed = Parser(command).parse(arguments, all_keys);
  auto* line = std::get_if<CommandLine>(&parsed);
  if (line == nullptr || line->resumed.empty()) return parsed;
  const std::filesystem::path folder = line->resumed;
  for (const std::string& argument : arguments)
    if (argument.starts_with("--") && argument != "--json" && !argument.starts_with("--resume"))
      fail_usage("--resume: goes with --json alone, not with {}: a run goes on as it was begun",
                 argument.substr(0, argument.find('=')));
  const StartedRun run = read_started_run(folder);
  if (run.command != to_string(command))
    fail_usage("--resume: {} was begun by {}: neuroflux {} --resume {}", folder.string(),
               run.command, run.command, folder.string());
  const bool json = line->json;
  parsed = Parser(command).parse(arguments_of(run, folder), std::move(all_keys));
  line = &std::get<CommandLine>(parsed);
  line->resumed = folder;
  line->json = json;
  line->budgets = run.budgets;
  line->seeds = run.seeds;
  line->options.resume = true;
  return parsed;
}

std::string program_help() {
  std::string text =
      "Trains CNNs under a hard memory budget, by adaptive local learning or backpropagation.\n"
      "Usage: neuroflux COMMAND [OPTIONS]      (neuroflux COMMAND --help tells a command's "
      "own)\n\n";
  for (const Command command : kCommands) {
    const std::string description = text_of(command).description;
    text += fmt::format("  {:<9}{}\n", to_string(command),
                        description.substr(0, description.find('\n')));
  }
  text +=
      "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 does not fit the budget, 130 "
      "interrupted.\n";
  return text;
}

}  // namespace nf::tools
