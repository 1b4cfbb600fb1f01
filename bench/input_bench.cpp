// What it brings to prepare batches ahead of their steps: the same training epoch with batches made
// in line and by a background thread, by turns. bench/README.md tells how to read it.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/program.h"
#include "bench/step_flags.h"
#include "engine/timer.h"
#include "nn/bp_trainer.h"
#include "nn/data/loader.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

struct Options : StepFlags {
  std::int64_t rounds = 5;
};

/// False where only the help was asked for. Throws Error or CLI::ParseError for bad flags.
bool parse(int argc, char** argv, Options& options) {
  CLI::App app{
      "Times epochs of backpropagation on padded, cropped and flipped images: each batch prepared "
      "in line before its step, and ahead by a background thread, by turns."};
  options.add_to(app);
  app.add_option("--rounds", options.rounds, "of each kind, of --steps steps")
      ->check(CLI::Range(1, 1000));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return false;
  }
  options.resolve();
  return true;
}

/// As a data set of small images is used: stored without its border, moved and mirrored.
nn::Loader make_loader(const Options& options) {
  const Shape& input = options.model_options.input;
  constexpr std::int64_t kBorder = 4;
  const auto stored = [](std::int64_t extent) {
    return std::max<std::int64_t>(1, extent - kBorder);
  };
  auto images = std::make_shared<nn::ImageSet>(
      nn::generate_images({.count = options.steps * options.batch,
                           .height = stored(input[0]),
                           .width = stored(input[1]),
                           .channels = input[2],
                           .classes = options.model_options.classes}));
  const nn::Transform transform(
      {.mean = std::vector<float>(static_cast<std::size_t>(input[2]), 0.5F),
       .std = std::vector<float>(static_cast<std::size_t>(input[2]), 0.25F),
       .pad_to_height = input[0],
       .pad_to_width = input[1],
       .crop_padding = kBorder,
       .flip = true});
  std::vector<std::int64_t> all = nn::all_indices(*images);
  return {std::move(images), std::move(all), transform, {.shuffle = true, .augment = true}};
}

struct Measured {
  std::vector<double> ratios;   // in line over ahead, of each round
  std::vector<double> in_line;  // seconds of a step
  std::vector<double> ahead;
  double preparing = 0;  // seconds of a batch, in line
  double waiting = 0;    // for a batch made ahead
  int threads = 0;
};

Measured measure(const Options& options, nn::Model& model) {
  nn::Loader loader = make_loader(options);
  const ContextPtr context = Context::create(options.device);
  nn::BpTrainer trainer(context, model, kOptimizer, 0);
  const auto train = [&](const nn::Batch& batch) { trainer.train_batch(batch, {}); };
  for (std::int64_t i = 0; i < kWarmUpSteps; ++i) train(loader.read(0, options.batch, 0));
  Measured measured;
  measured.threads = context->backend().threads();
  const auto steps = static_cast<double>(options.steps);
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    const Timer in_line;
    for (std::int64_t i = 0; i < options.steps; ++i) {
      const Timer preparing;
      const nn::Batch batch = loader.read(i * options.batch, options.batch, round);
      measured.preparing += preparing.seconds() / steps / static_cast<double>(options.rounds);
      train(batch);
    }
    measured.in_line.push_back(in_line.seconds() / steps);
    const Timer ahead;
    loader.start(options.batch, round);
    while (const nn::Batch* batch = loader.next()) train(*batch);
    measured.ahead.push_back(ahead.seconds() / steps);
    measured.ratios.push_back(measured.in_line.back() / measured.ahead.back());
  }
  measured.waiting = loader.wait_seconds() / steps / static_cast<double>(options.rounds);
  return measured;
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
  const auto [least, most] = std::minmax_element(measured.ratios.begin(), measured.ratios.end());
  if (options.json) {
    nlohmann::json json = options.describe(model->name(), measured.threads);
    json.update({{"rounds", options.rounds},
                 {"in_line_over_ahead", median(measured.ratios)},
                 {"in_line_over_ahead_min", *least},
                 {"in_line_over_ahead_max", *most},
                 {"in_line_step_seconds", median(measured.in_line)},
                 {"ahead_step_seconds", median(measured.ahead)},
                 {"preparing_seconds", measured.preparing},
                 {"waiting_seconds", measured.waiting}});
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print(
        "{} batch {} on {} ({} threads): batches made in line take {:.3f} times as long as ahead "
        "({:.3f} to {:.3f}); step {:.2f} and {:.2f} ms, of which {:.3f} preparing and {:.3f} "
        "waiting\n",
        model->name(), options.batch, to_string(options.device.device), measured.threads,
        median(measured.ratios), *least, *most, 1e3 * median(measured.in_line),
        1e3 * median(measured.ahead), 1e3 * measured.preparing, 1e3 * measured.waiting);
  }
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  return nf::bench::run_program("input_bench", nf::bench::run, argc, argv);
}
