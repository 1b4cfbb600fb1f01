// Times whole training steps, or inference; bench/README.md tells how to read it.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/conditions.h"
#include "bench/program.h"
#include "bench/step_flags.h"
#include "engine/text.h"
#include "engine/timer.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

struct Options : StepFlags {
  bool inference = false;
};

struct Measured {
  std::vector<double> seconds;     // of each step, ascending
  double cpu_seconds = 0;          // of all threads, mean of a step
  std::int64_t peak_bytes = 0;     // reserved on the device
  std::int64_t process_bytes = 0;  // resident, at most
  int threads = 0;                 // inside operators
  bool graphs = false;             // whether timed steps were replayed
};

/// False where only the help was asked for. Throws Error or CLI::ParseError for bad flags.
bool parse(int argc, char** argv, Options& options) {
  CLI::App app{
      "Times whole training steps of backpropagation (SGD, momentum), or inference, on random "
      "images."};
  options.add_to(app);
  std::string graphs;
  app.add_option("--graphs", graphs,
                 "on: replay steps as one launch each; off: call by call; default: on for cuda")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_flag("--inference", options.inference,
               "forward passes alone, with batch norms folded into the convolutions");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return false;
  }
  options.resolve();
  if (!graphs.empty()) options.device.graphs = graphs == "on";
  return true;
}

template <typename Step>
void time_steps(const Options& options, Context& context, Measured& measured, const Step& step) {
  ProcessorTimer processor;
  for (std::int64_t i = 0; i < kWarmUpSteps + options.steps; ++i) {
    if (i == kWarmUpSteps) processor = ProcessorTimer();
    const Timer timer;
    step();
    context.backend().synchronize();
    const double seconds = timer.seconds();
    if (i >= kWarmUpSteps) measured.seconds.push_back(seconds);
  }
  measured.cpu_seconds = processor.seconds() / static_cast<double>(options.steps);
}

void train(const Options& options, const ContextPtr& context, nn::Model& model,
           const nn::HostBatch& batch, Measured& measured) {
  nn::BpTrainer trainer(context, model, kOptimizer, 0);
  time_steps(options, *context, measured, [&] { trainer.train(batch, {}); });
  // The first step warms up, the second is captured and replayed, as are all others.
  measured.graphs = trainer.replays() == kWarmUpSteps + options.steps - 1;
}

Measured measure(const Options& options, nn::Model& model) {
  const RandomBatch images(options.batch, options.model_options.input,
                           options.model_options.classes);
  const nn::HostBatch batch = images.host();
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

nlohmann::json to_json(const Options& options, const nn::Model& model, const Measured& measured) {
  const double seconds = median(measured.seconds);
  nlohmann::json json = options.describe(model.name(), measured.threads);
  json.update({{"pass", options.inference ? "inference" : "training"},
               {"graphs", measured.graphs},
               {"flops_per_image", model.flops(model.input_shape(1))},
               {"images_per_second", static_cast<double>(options.batch) / seconds},
               {"step_seconds", seconds},
               {"step_seconds_min", measured.seconds.front()},
               {"step_seconds_max", measured.seconds.back()},
               {"step_cpu_seconds", measured.cpu_seconds},
               {"peak_bytes", measured.peak_bytes},
               {"process_peak_bytes", measured.process_bytes}});
  return json;
}

void print_line(const Options& options, const std::string& model, const Measured& measured) {
  fmt::print(
      "{} batch {} on {} ({}, {} threads): {:.1f} images/s, step {:.2f} ms ({:.2f} to {:.2f}), "
      "peak {}, process {}\n",
      model, options.batch, to_string(options.device.device), library(options.device),
      measured.threads, static_cast<double>(options.batch) / median(measured.seconds),
      1e3 * median(measured.seconds), 1e3 * measured.seconds.front(), 1e3 * measured.seconds.back(),
      format_bytes(measured.peak_bytes), format_bytes(measured.process_bytes));
}

int run(int argc, char** argv) {
  Options options;
  std::unique_ptr<nn::Model> model;
  try {
    if (!parse(argc, argv, options)) return 0;
    model = nn::make_model(options.model, options.model_options);
  } catch (const std::exception& error) {
    throw BadFlags(error.what());
  }
  const Measured measured = measure(options, *model);
  if (options.json)
    fmt::print("{}\n", to_json(options, *model, measured).dump());
  else
    print_line(options, model->name(), measured);
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  return nf::bench::run_program("train_step", nf::bench::run, argc, argv);
}
