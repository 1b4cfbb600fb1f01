// Each group of flags: names, rules, help, and where values go.
#include <algorithm>
#include <limits>

#include "engine/text.h"
#include "nn/models/registry.h"
#include "tools/errors.h"
#include "tools/parser.h"

namespace nf::tools {
namespace {

constexpr std::int64_t kMaxPixels = 65536;
constexpr std::int64_t kMaxImages = std::int64_t{1} << 40;

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

}  // namespace

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
  flags_.whole("--linear-points", options_.linear_points, std::int64_t{2},
               "Memory model linear: peaks of each block through which the line is laid",
               kMaxBatch);
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
        .parsed("--budgets", "BYTES,…", "",
                command() == Command::plan
                    ? "A table over these budgets, as in 32MiB,64MiB; without --save, --explain "
                      "and --trace"
                    : "Under each of these budgets, as in 32MiB,64MiB",
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
  flags_.text(
      "--units", "RULE", options_.units,
      "Which of the net's units neuroflux trains by one loss: joined to this many of about the "
      "same FLOPs; a list as 4,5: joined in these numbers; stage: those whose outputs are of one "
      "size; each: by its own; a file given to --plan decides it itself");
  flags_.parsed("--cache-dtype", "NAME", to_string(training.cache_dtype),
                "Activations on storage: f32, bf16, f16", [&training](const std::string& text) {
                  parse_names(text, {"f32", "bf16", "f16"});
                  training.cache_dtype = parse_dtype(text);
                });
  flags_.whole("--cache-views", options_.cache_views, std::int64_t{1},
               "Augmented copies of the training set that are cached, one epoch each in turn, no "
               "more than --epochs; 1: a single one, not augmented, or as many as a file given to "
               "--plan says",
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
  flags_.parsed(
      "--update", "MOMENT", "",
      "When a step updates: immediate, each parameter as soon as its gradient is there, "
      "which is freed, or together, behind all gradients; the same bits either way. "
      "Default: immediate for units of local and neuroflux, together for whole nets. "
      "Always together: bp-accumulate, --clip-norm, --check-finite",
      [&optimizer](const std::string& text) { optimizer.update = nn::parse_update_moment(text); });
}

// A plan takes what its times and cuts hang on.
void Parser::add_training() {
  LocalTrainingOptions& training = options_.training;
  if (trains()) {
    flags_.real("--lr", training.optimizer.learning_rate, {.open_least = true},
                "Learning rate at the reference batch; it scales with the batch in use");
    flags_.whole("--reference-batch", training.reference_batch, std::int64_t{1},
                 "Batch that --lr is meant for");
  }
  flags_.group("Training");
  flags_.whole("--epochs", training.epochs, std::int64_t{1}, "Passes per block, or over the net",
               std::int64_t{1000000});
  if (trains()) add_schedule();
  flags_.toggle("--no-early-stop", without_early_stop_,
                "Train all blocks, even where exits no longer improve");
  flags_.whole("--patience", training.patience, std::int64_t{1},
               "Exits that may fail to improve before training stops");
  if (trains()) add_exits();
  flags_.parsed("--cache-dir", "FOLDER", "",
                trains() ? "Where the run makes a folder for its activation cache; default: the "
                           "run folder"
                         : "Where --profile measures the storage of the activation cache; default: "
                           "the present folder",
                [&training](const std::string& text) {
                  NF_CHECK(!text.empty(), "must not be empty");
                  training.cache_folder = text;
                });
  const std::string measured = trains() ? "" : ", where --profile measures them";
  flags_.parsed("--cache-io", "NAME", "automatic",
                "How its files are read and written" + measured +
                    ": io_uring, threads, or automatic, which takes the first where the kernel has "
                    "it",
                [&training](const std::string& text) {
                  training.cache_storage.queue.engine = parse_storage_engine(text);
                });
  flags_.toggle("--cache-buffered", cache_buffered_,
                "Let its files go through the system's page cache" + measured);
}

void Parser::add_schedule() {
  LocalTrainingOptions& training = options_.training;
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
}

void Parser::add_exits() {
  LocalTrainingOptions& training = options_.training;
  flags_.real("--improvement", training.improvement, {.least = 0, .most = 1},
              "Validation accuracy, as a fraction, that counts as one");
  flags_.real("--tolerance", training.exit_tolerance, {.least = 0, .most = 1},
              "How far below the best exit the delivered one may be, as a fraction");
  flags_.real(
      "--exit-accuracy", training.exit_accuracy, {.least = 0, .most = 1},
      "Deliver the smallest exit of this validation accuracy, as a fraction, and stop behind the "
      "first block with one (but for --no-early-stop); where none has it or 0, --tolerance "
      "decides");
  if (command() == Command::compare)
    flags_.parsed(
        "--exit-within-bp", "POINTS", "",
        "neuroflux delivers the smallest exit whose validation accuracy is at most this many "
        "points (0.5: half a percent of the images) below that of bp, which runs before it; what "
        "is trained is the same, and where no exit is so good, --tolerance decides",
        [this](const std::string& text) {
          options_.exit_within_bp = parse_real(text, {.least = 0, .most = 100});
        });
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
    flags_
        .parsed("--resume", "FOLDER", "",
                "Go on with the run of this folder after its last finished epoch; all other flags "
                "but --json are those it was begun with",
                read_path(line_.resumed))
        ->configurable(false);
    flags_.toggle("--no-checkpoints", without_checkpoints_,
                  "Leave none after each epoch: a run that is cut off begins anew");
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

void Parser::add_export() {
  app_.add_option_function<std::string>(
          "RUN", [this](const std::string& folder) { line_.exported_run = folder; },
          "Folder of a finished run")
      ->required()
      ->configurable(false)
      ->type_name("FOLDER");
  ExitWanted& wanted = line_.wanted_exit;
  flags_.group("Exit (one of the first two)");
  flags_
      .parsed("--exit", "N", "", "The exit behind this unit, counted from 1 as in the run's table",
              [&wanted](const std::string& text) {
                wanted.unit =
                    parse_whole(text, std::int64_t{1}, std::numeric_limits<std::int64_t>::max());
              })
      ->configurable(false);
  flags_
      .real("--exit-accuracy", wanted.accuracy, {.least = 0, .most = 1, .open_least = true},
            "The exit of the fewest parameters with this validation accuracy, as a fraction")
      ->configurable(false);
  flags_.choice("--method", wanted.method, {"neuroflux", "local"}, "Whose exit")
      ->configurable(false);
  flags_.group("Output");
  flags_
      .parsed("--out", "FILE", line_.exit_file.string(),
              "Where the exit is written, as weights for eval",
              [this](const std::string& text) {
                NF_CHECK(!text.empty(), "must not be empty");
                line_.exit_file = text;
              })
      ->configurable(false);
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

}  // namespace nf::tools
