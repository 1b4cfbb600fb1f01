#include "tools/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/text.h"
#include "nn/models/registry.h"
#include "tools/config_file.h"
#include "tools/errors.h"
#include "tools/flags.h"

namespace nf::tools {
namespace {

constexpr std::array kCommands{Command::plan, Command::train,  Command::compare,
                               Command::eval, Command::report, Command::kernels};
constexpr std::int64_t kMaxPixels = 65536;
constexpr std::int64_t kMaxImages = std::int64_t{1} << 40;
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

std::string joined(const std::vector<std::string>& names, const std::string& separator) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : separator) + name;
  return text;
}

/// Each part of a list separated by commas, none of them twice.
template <typename Parse>
auto parse_list(const std::string& text, const Parse& parse) {
  std::vector<decltype(parse(text))> values;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    values.push_back(parse(text.substr(begin, end - begin)));
    NF_CHECK(std::count(values.begin(), values.end(), values.back()) == 1, "{} comes twice",
             text.substr(begin, end - begin));
    begin = end + 1;
  }
  return values;
}

std::vector<std::int64_t> parse_budgets(const std::string& text) {
  return parse_list(text, [](const std::string& part) { return parse_bytes(part); });
}

std::vector<std::uint64_t> parse_seeds(const std::string& text) {
  return parse_list(text, [](const std::string& part) {
    return parse_whole<std::uint64_t>(part, 0, std::numeric_limits<std::uint64_t>::max());
  });
}

/// CLI11 leaves two lines between groups.
std::string without_double_gaps(std::string text) {
  for (std::size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  return text;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

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
  void add_device();
  void add_output();
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
  DataShape shape_;
  std::int64_t train_images_ = 50000;
  std::string storage_ = "f32";
  std::vector<CLI::Option*> shape_flags_;
  CLI::Option* profile_flag_ = nullptr;
};

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
  if (command != Command::eval) add_optimizer();
  if (trains()) add_training();
  add_device();
  add_output();
}

void Parser::add_net() {
  flags_.group("Net");
  flags_.text("--model", "NAME", options_.model, "One of " + joined(nn::model_names(), ", "));
  flags_.real("--width", options_.width, {.least = 0, .most = 16, .open_least = true},
              "Factor on every number of channels");
  flags_.real("--dropout", options_.dropout, {.least = 0, .most = 1, .open_most = true},
              "Probability before the last linear layer");
}

void Parser::add_data() {
  nn::TrainingDataOptions& data = options_.data_options;
  nn::GeneratedOptions& generated = options_.generated;
  flags_.group("Data");
  flags_.text("--data", "FOLDER", options_.data,
              "Folder of IDX files (train-images-idx3-ubyte and its companions, each with or "
              "without .gz), or \"generated\"");
  if (command() != Command::eval) {
    flags_.whole("--train-limit", data.train_limit, std::int64_t{0},
                 "Training images used, validation included; 0: all");
    flags_.whole("--data-classes", data.classes, std::int64_t{0},
                 "Classes of the IDX files; 0: as many as their labels show", std::int64_t{256});
    flags_.real("--validation-fraction", data.validation_fraction,
                {.least = 0, .most = 1, .open_most = true},
                "Share of the training images kept for validation");
    flags_.whole("--pad-to", data.pad_to, std::int64_t{0},
                 "Smaller images are centred in a square of this size; 0: as they are", kMaxPixels);
    flags_.whole("--crop", data.crop_padding, std::int64_t{0},
                 "Augmentation: shift by up to this many pixels", kMaxPixels);
    flags_.toggle("--flip", data.flip, "Augmentation: mirror every other image");
  }
  flags_.whole("--test-limit", data.test_limit, std::int64_t{0}, "Test images used; 0: all");
  flags_.whole("--loader-threads", data.threads, 1, "Threads that prepare batches", 1024);
  flags_.group("Generated data");
  flags_.whole("--generated-count", generated.count, std::int64_t{1},
               "Training images; the test set is a fifth of it");
  flags_.parsed("--generated-size", "HxWxC", "32x32x3", "Size and channels of an image",
                [&generated](const std::string& text) {
                  const Shape size = parse_extents(text);
                  generated.height = size[0];
                  generated.width = size[1];
                  generated.channels = size[2];
                });
  flags_.whole("--generated-classes", generated.classes, std::int64_t{1}, "Classes", kMaxPixels);
  flags_.whole("--generated-seed", generated.seed, std::uint64_t{0},
               "What the classes look like hangs on this alone");
}

void Parser::add_shape() {
  flags_.group("Data described by hand (any of these takes the place of --data)");
  shape_flags_ = {
      flags_.parsed("--input", "HxWxC", "32x32x3", "What the net gets, padding included",
                    [this](const std::string& text) { shape_.sample = parse_extents(text); }),
      flags_.whole("--classes", shape_.classes, std::int64_t{1}, "Classes", kMaxPixels),
      flags_.whole("--train-images", train_images_, std::int64_t{1},
                   "Training images, validation included", kMaxImages),
      flags_.whole("--test-images", shape_.test_count, std::int64_t{0}, "Test images")};
}

void Parser::add_method() {
  LocalTrainingOptions& training = options_.training;
  flags_.group("Method");
  const auto read_methods = [this](const std::string& text) {
    options_.methods = parse_names(text, method_names());
  };
  if (command() == Command::train)
    flags_.choice("--method", options_.methods.front(), method_names(), "How to train");
  else if (command() != Command::eval)
    flags_.parsed("--methods", "NAMES", joined(options_.methods, ","),
                  "Comma-separated: " + joined(method_names(), ","), read_methods);
  flags_.parsed(
      "--budget", "BYTES", "all",
      "Device memory that may ever be reserved: 64MiB, 64M, 1.5GiB, 67108864; "
      "all: what the device has",
      [this](const std::string& text) { options_.budget = text == "all" ? 0 : parse_bytes(text); });
  flags_.whole("--batch", options_.batch, std::int64_t{1},
               command() == Command::eval ? "Largest batch" : "Batch wanted; less where less fits",
               kMaxBatch);
  if (command() == Command::eval) return;
  flags_.choice("--partition", options_.partition, partition_rule_names(),
                "How the net is cut into blocks: least expected time, like feasible batches, or "
                "not at all");
  flags_.real("--rho", options_.rho, {.least = 0, .most = 1},
              "Partition homogeneous: how far feasible batches may differ within a block, as a "
              "fraction");
  flags_.parsed("--memory-model", "NAME", "exact",
                "What batches are chosen by: exact peaks, or linear, a line through a few of them",
                [this](const std::string& text) {
                  const bool linear = parse_names(text, {"exact", "linear"}).front() == "linear";
                  options_.memory_model = linear ? MemoryModel::linear : MemoryModel::exact;
                });
  profile_flag_ = flags_.toggle(
      "--profile,!--no-profile", options_.profile,
      "Measure the times that the plan rests on, or predict them from FLOPs and bytes, by which "
      "the plan is the same every time; train and compare measure, but not on simt");
  flags_.parsed("--plan", "FILE", "", "Run this plan of neuroflux as it is given",
                [this](const std::string& text) {
                  NF_CHECK(!text.empty(), "must not be empty");
                  options_.plan_file = text;
                });
  if (command() == Command::plan || command() == Command::compare)
    flags_
        .parsed("--budgets", "BYTES,…", "", "Under each of these budgets, as in 32MiB,64MiB",
                [this](const std::string& text) { line_.budgets = parse_budgets(text); })
        ->configurable(false);
  if (command() == Command::compare)
    flags_
        .parsed("--seeds", "N,…", "", "With each of these seeds, as in 0,1,2",
                [this](const std::string& text) { line_.seeds = parse_seeds(text); })
        ->configurable(false);
  if (command() == Command::plan) {
    flags_.toggle("--explain", line_.explain, "Say why each unit is where it is")
        ->configurable(false);
    flags_
        .parsed("--save", "FILE", "", "Write the plan, to be edited and run with --plan",
                [this](const std::string& text) {
                  NF_CHECK(!text.empty(), "must not be empty");
                  line_.plan_to_save = text;
                })
        ->configurable(false);
  }
  flags_.choice("--auxiliary", options_.auxiliary, auxiliary_rule_names(),
                "Rule for the auxiliary networks");
  flags_.parsed("--cache-dtype", "NAME", to_string(training.cache_dtype),
                "Activations on storage: f32, bf16, f16", [&training](const std::string& text) {
                  parse_names(text, {"f32", "bf16", "f16"});
                  training.cache_dtype = parse_dtype(text);
                });
  flags_.whole("--cache-views", options_.cache_views, std::int64_t{1},
               "Augmented copies of the training set that are cached, one epoch each in turn; 1: a "
               "single one, not augmented",
               kMaxCacheViews);
  flags_.parsed("--cache", "PLACE", to_string(training.cache_place),
                "Where activations are cached: disk, memory (of the host)",
                [&training](const std::string& text) {
                  parse_names(text, {"disk", "memory"});
                  training.cache_place = text == "disk" ? CachePlace::disk : CachePlace::memory;
                });
  flags_.parsed("--cache-host-memory", "BYTES", "all",
                "Host memory that caches there and the buffers of all may take together",
                [&training](const std::string& text) {
                  training.cache_host_bytes = text == "all" ? 0 : parse_bytes(text);
                });
  flags_.whole("--seed", training.seed, std::uint64_t{0},
               "Of weights, split, order and augmentation");
}

void Parser::add_optimizer() {
  nn::OptimizerOptions& optimizer = options_.training.optimizer;
  flags_.group("Optimizer");
  flags_.parsed("--optimizer", "NAME", to_string(optimizer.kind), "sgd, adamw",
                [&optimizer](const std::string& text) {
                  parse_names(text, {"sgd", "adamw"});
                  optimizer.kind = nn::parse_optimizer(text);
                });
  flags_.real("--momentum", optimizer.momentum, {.least = 0, .most = 1, .open_most = true},
              "Of sgd; 0 keeps no state");
  flags_.toggle("--nesterov", optimizer.nesterov, "Nesterov momentum, sgd");
  flags_.real("--weight-decay", optimizer.weight_decay, {}, "Weight decay");
  flags_.real("--clip-norm", optimizer.max_gradient_norm, {},
              "Largest norm of a unit's gradients (bp: of the net's); 0: not clipped");
  flags_.toggle("--check-finite", optimizer.check_finite,
                "Stop at a gradient that is infinite or NaN, and name its parameter");
}

void Parser::add_training() {
  LocalTrainingOptions& training = options_.training;
  flags_.real("--lr", training.optimizer.learning_rate, {.open_least = true},
              "Learning rate at the reference batch; it scales with the batch in use");
  flags_.whole("--reference-batch", training.reference_batch, std::int64_t{1},
               "Batch that --lr is meant for");
  flags_.group("Training");
  flags_.whole("--epochs", training.epochs, std::int64_t{1}, "Passes per block, or over the net",
               std::int64_t{1000000});
  flags_.parsed(
      "--schedule", "NAME", to_string(training.schedule),
      "Of the learning rate: constant, step, cosine, one_cycle",
      [&training](const std::string& text) { training.schedule = nn::parse_schedule(text); });
  flags_.real("--step-epochs", training.step_epochs, {},
              "Schedule step: epochs between two cuts; 0: a third of all");
  flags_.real("--gamma", training.gamma, {.least = 0, .most = 1, .open_least = true},
              "Schedule step: factor of each cut");
  flags_.real("--warmup", training.warmup_epochs, {}, "Epochs of linear warm-up");
  flags_.real("--label-smoothing", training.label_smoothing,
              {.least = 0, .most = 1, .open_most = true}, "Share spread over all classes");
  flags_.toggle("--no-early-stop", without_early_stop_,
                "Train all blocks, even where exits no longer improve");
  flags_.whole("--patience", training.patience, std::int64_t{1},
               "Exits that may fail to improve before training stops");
  flags_.real("--improvement", training.improvement, {.least = 0, .most = 1},
              "Validation accuracy, as a fraction, that counts as one");
  flags_.real("--tolerance", training.exit_tolerance, {.least = 0, .most = 1},
              "How far below the best exit the delivered one may be, as a fraction");
  flags_.parsed("--cache-dir", "FOLDER", "",
                "Where the run makes a folder for its activation cache; default: the run folder",
                [&training](const std::string& text) {
                  NF_CHECK(!text.empty(), "must not be empty");
                  training.cache_folder = text;
                });
  flags_.parsed("--cache-io", "NAME", "automatic",
                "How its files are read and written: io_uring, threads, or automatic, which takes "
                "the first where the kernel has it",
                [&training](const std::string& text) {
                  training.cache_storage.queue.engine = parse_storage_engine(text);
                });
  flags_.toggle("--cache-buffered", cache_buffered_,
                "Let its files go through the system's page cache");
}

void Parser::add_device() {
  ContextOptions& device = options_.device;
  flags_.group("Device");
  flags_.parsed("--device", "NAME", to_string(device.device),
                "Where to train: cpu, cuda[:N], or simt, the GPU's kernels on an emulator",
                [&device](const std::string& text) {
                  device.device = parse_device(text);
                  NF_CHECK(device.device.kind != DeviceKind::meta,
                           "must be cpu, cuda or simt, got \"{}\", which computes nothing", text);
                });
  flags_.toggle("--tf32", device.tf32,
                "Let a GPU's tensor cores round operands of convolutions to 10 bits");
  if (command() != Command::eval)
    flags_.parsed("--graphs", "on|off", "",
                  "Replay a training step as one launch; default: on for cuda, off for simt",
                  [&device](const std::string& text) {
                    NF_CHECK(text == "on" || text == "off", "must be on or off, got \"{}\"", text);
                    device.graphs = text == "on";
                  });
  flags_.whole("--threads", device.threads, 0, "Threads inside operators; 0: one per core",
               kMaxThreads);
  flags_.toggle("--no-onednn", without_onednn_, "Compute by Eigen alone");
}

void Parser::add_output() {
  const auto read_path = [](std::filesystem::path& target) {
    return [&target](const std::string& text) {
      NF_CHECK(!text.empty(), "must not be empty");
      target = text;
    };
  };
  flags_.group("Output");
  if (trains()) {
    flags_.parsed("--run-dir", "FOLDER", "",
                  "Run folder; default: runs/COMMAND-MODEL-SEED-TIME, always a fresh one",
                  read_path(options_.run_folder));
    flags_.toggle("--overwrite", line_.overwrite, "Replace the run that --run-dir holds")
        ->configurable(false);
  }
  if (command() != Command::eval)
    flags_.parsed("--trace", "FILE", "",
                  "Memory events of the first steps, as .csv or .json (Chrome, Perfetto)",
                  [this](const std::string& text) {
                    check_trace_path(text);
                    options_.trace = text;
                  });
  flags_.toggle("--json", line_.json, "A JSON document on stdout, and nothing else")
      ->configurable(false);
  app_.set_config("--config", "", "TOML file with these flags' names as keys; flags win over it")
      ->configurable(false)
      ->type_name("FILE")
      ->group("Output");
}

// None is a key of a configuration file: those describe trainings.
void Parser::add_kernels() {
  KernelsOptions& kernels = line_.kernels;
  CatalogueSizes& sizes = kernels.sizes;
  const auto extent = [this](const char* name, std::int64_t& target, const char* help) {
    flags_.whole(name, target, std::int64_t{1}, help, kMaxPixels)->configurable(false);
  };
  flags_.group("Kernels");
  extent("--batch", sizes.n, "Images of the tensor (batch, height, width, channels)");
  extent("--height", sizes.h, "Rows of an image");
  extent("--width", sizes.w, "Columns of an image");
  extent("--channels", sizes.c, "Channels");
  flags_.choice("--dtype", storage_, {"f32", "bf16", "f16"}, "Type of its elements")
      ->configurable(false);
  flags_
      .text("--kernel", "NAME", kernels.kernel,
            "Only launchers with this in their name, as in add or max_pool_forward/2x2")
      ->configurable(false);
  flags_.whole("--seed", kernels.seed, std::uint64_t{0}, "Order of blocks, warps and lanes")
      ->configurable(false);
  flags_.group("Output");
  flags_.toggle("--json", line_.json, "A JSON document on stdout, and nothing else")
      ->configurable(false);
}

void Parser::add_report() {
  app_.add_option_function<std::vector<std::string>>(
          "RUN",
          [this](const std::vector<std::string>& folders) {
            line_.reported.assign(folders.begin(), folders.end());
          },
          "Folders of runs or of whole comparisons")
      ->required()
      ->configurable(false)
      ->type_name("FOLDER");
  flags_.group("Output");
  flags_
      .parsed("--out", "FILE", line_.report_file.string(), "Where the page is written",
              [this](const std::string& text) {
                NF_CHECK(!text.empty(), "must not be empty");
                line_.report_file = text;
              })
      ->configurable(false);
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
  options_.data_options.seed = options_.training.seed;
  std::vector<std::string> left_out{"run-dir", "cache-dir", "trace"};
  if (profile_flag_ != nullptr && profile_flag_->count() == 0) left_out.emplace_back("profile");
  options_.config_text = config_text(app_, left_out);
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
  } else if (options_.data.empty()) {
    fail_usage("{} needs --data FOLDER or --data generated", to_string(command()));
  }
  const std::filesystem::path folder = options_.trace.parent_path();
  if (!folder.empty() && folder != options_.run_folder && !std::filesystem::is_directory(folder))
    fail_usage("--trace: there is no folder {}", folder.string());
  try {
    check_experiment(options_);
    if (command() != Command::eval) nn::make_model(options_.model, {});
  } catch (const Error& error) {
    fail_usage("{}", error.what());
  }
}

}  // namespace

const char* to_string(Command command) {
  constexpr std::array names{"plan", "train", "compare", "eval", "report", "kernels"};
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
  return Parser(command).parse(arguments, std::move(all_keys));
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
