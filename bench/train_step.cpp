// Times whole training steps, or inference; bench/README.md tells how to read it.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/conditions.h"
#include "engine/random.h"
#include "engine/text.h"
#include "engine/timer.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

constexpr std::int64_t kWarmUpSteps = 3;

struct Options {
  std::string model = "resnet18";
  nn::ModelOptions model_options;
  std::int64_t batch = 16;
  std::int64_t steps = 10;
  ContextOptions device;
  bool inference = false;
  bool json = false;
};

struct Measured {
  std::vector<double> seconds;     // of each step, ascending
  std::int64_t peak_bytes = 0;     // reserved on the device
  std::int64_t process_bytes = 0;  // resident, at most
  int threads = 0;                 // inside operators
  bool graphs = false;             // whether timed steps were replayed

  double median() const {
    return 0.5 * (seconds[(seconds.size() - 1) / 2] + seconds[seconds.size() / 2]);
  }
};

/// False where only the help was asked for. Throws Error or CLI::ParseError for bad flags.
bool parse(int argc, char** argv, Options& options) {
  std::vector<std::int64_t> input{32, 32, 3};
  std::string device = "cpu";
  bool no_onednn = false;
  CLI::App app{
      "Times whole training steps of backpropagation (SGD, momentum), or inference, on random "
      "images."};
  app.option_defaults()->always_capture_default();
  app.add_option("--model", options.model, "net, as vgg11 or mobilenet_v1");
  app.add_option("--batch", options.batch, "images per step")->check(CLI::Range(1, 65536));
  app.add_option("--steps", options.steps, "timed steps, after three to warm up")
      ->check(CLI::Range(1, 100000));
  app.add_option("--device", device, "cpu, cuda[:N] or simt");
  app.add_option("--threads", options.device.threads, "inside operators, 0: one per core")
      ->check(CLI::Range(0, 1024));
  app.add_option("--width", options.model_options.width, "factor on the net's channels");
  app.add_option("--input", input, "height, width and channels of an image, as 32x32x3")
      ->delimiter('x')
      ->expected(3)
      ->check(CLI::Range(1, 4096));
  app.add_option("--classes", options.model_options.classes, "outputs of the net")
      ->check(CLI::Range(1, 1000000));
  std::string graphs;
  app.add_option("--graphs", graphs,
                 "on: replay steps as one launch each; off: call by call; default: on for cuda")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_flag("--tf32", options.device.tf32,
               "let a GPU round operands of convolutions and products to 10 bits");
  app.add_flag("--no-onednn", no_onednn, "convolution and matrix product by Eigen");
  app.add_flag("--inference", options.inference,
               "forward passes alone, with batch norms folded into the convolutions");
  app.add_flag("--json", options.json, "one JSON object instead of a line of text");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return false;
  }
  options.model_options.input = Shape(input);
  options.device.device = parse_device(device);
  options.device.onednn = !no_onednn;
  if (!graphs.empty()) options.device.graphs = graphs == "on";
  NF_CHECK(options.device.device.kind != DeviceKind::meta,
           "--device: {} computes nothing, so there is nothing to time", device);
  return true;
}

template <typename Step>
void time_steps(const Options& options, Context& context, Measured& measured, const Step& step) {
  for (std::int64_t i = 0; i < kWarmUpSteps + options.steps; ++i) {
    const Timer timer;
    step();
    context.backend().synchronize();
    const double seconds = timer.seconds();
    if (i >= kWarmUpSteps) measured.seconds.push_back(seconds);
  }
}

void train(const Options& options, const ContextPtr& context, nn::Model& model,
           const nn::HostBatch& batch, Measured& measured) {
  // Small enough that no net diverges on random labels; its value does not change the time.
  const nn::OptimizerOptions optimizer{
      .learning_rate = 1e-3, .momentum = 0.9, .weight_decay = 5e-4};
  nn::BpTrainer trainer(context, model, optimizer, 0);
  time_steps(options, *context, measured, [&] { trainer.train(batch, {}); });
  // The first step warms up, the second is captured and replayed, as are all others.
  measured.graphs = trainer.replays() == kWarmUpSteps + options.steps - 1;
}

Measured measure(const Options& options, nn::Model& model) {
  const std::int64_t values = options.batch * options.model_options.input.numel();
  RandomStream random(random_key(0, Purpose::generate));
  std::vector<float> images(static_cast<std::size_t>(values));
  for (float& value : images) value = random.normal();
  std::vector<std::int32_t> labels(static_cast<std::size_t>(options.batch));
  for (std::int32_t& label : labels)
    label = static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(options.model_options.classes)));

  const nn::HostBatch batch{.size = options.batch,
                            .sample = options.model_options.input,
                            .images = images.data(),
                            .labels = labels.data()};
  const ContextPtr context = Context::create(options.device);
  Measured measured;
  if (options.inference) {
    model.materialize(context, 0);
    model.fold_batch_norms();
    time_steps(options, *context, measured,
               [&] { model.forward({}, nn::stage_images(context, batch)); });
    model.release();
  } else {
    train(options, context, model, batch, measured);
  }
  std::sort(measured.seconds.begin(), measured.seconds.end());
  measured.threads = context->backend().threads();
  measured.peak_bytes = context->pool().stats().peak_reserved;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  measured.process_bytes = std::int64_t{usage.ru_maxrss} * 1024;
  return measured;
}

nlohmann::json to_json(const Options& options, const std::string& model, const Measured& measured) {
  const double median = measured.median();
  return {{"engine", "neuroflux"},
          {"model", model},
          {"width", options.model_options.width},
          {"input", options.model_options.input.extents()},
          {"classes", options.model_options.classes},
          {"batch", options.batch},
          {"steps", options.steps},
          {"pass", options.inference ? "inference" : "training"},
          {"device", to_string(options.device.device)},
          {"tf32", options.device.tf32},
          {"graphs", measured.graphs},
          {"threads", measured.threads},
          {"library", library(options.device)},
          {"compiler", compiler()},
          {"build", build()},
          {"commit", commit()},
          {"images_per_second", static_cast<double>(options.batch) / median},
          {"step_seconds", median},
          {"step_seconds_min", measured.seconds.front()},
          {"step_seconds_max", measured.seconds.back()},
          {"peak_bytes", measured.peak_bytes},
          {"process_peak_bytes", measured.process_bytes}};
}

void print_line(const Options& options, const std::string& model, const Measured& measured) {
  fmt::print(
      "{} batch {} on {} ({}, {} threads): {:.1f} images/s, step {:.2f} ms ({:.2f} to {:.2f}), "
      "peak {}, process {}\n",
      model, options.batch, to_string(options.device.device), library(options.device),
      measured.threads, static_cast<double>(options.batch) / measured.median(),
      1e3 * measured.median(), 1e3 * measured.seconds.front(), 1e3 * measured.seconds.back(),
      format_bytes(measured.peak_bytes), format_bytes(measured.process_bytes));
}

int run(int argc, char** argv) {
  Options options;
  std::unique_ptr<nn::Model> model;
  try {
    if (!parse(argc, argv, options)) return 0;
    model = nn::make_model(options.model, options.model_options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "train_step: {}\n", error.what());
    return 2;
  }
  const Measured measured = measure(options, *model);
  if (options.json)
    fmt::print("{}\n", to_json(options, model->name(), measured).dump());
  else
    print_line(options, model->name(), measured);
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  try {
    return nf::bench::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "train_step: {}\n", error.what());
    return 1;
  }
}
