// Several units that are trained together, all of their step replayed as one.
#include <gtest/gtest.h>

#include "engine/random.h"
#include "neuroflux/local_net.h"
#include "nn/models/registry.h"
#include "tests/neuroflux/phase_peaks.h"

namespace nf::test {
namespace {

constexpr std::int64_t kBatch = 2;

struct Outcome {
  std::vector<std::vector<double>> losses;  // of each step, of each unit
  nn::StateDict state;
  std::vector<PhasePeak> peaks;
  std::int64_t replays = 0;
};

/// Eight steps; between them what a training does: a validation, the features for the next block,
/// and once the block leaves the device and returns.
Outcome train(const ContextPtr& context, const std::optional<nn::PixelFormat>& format,
              const nn::OptimizerOptions& optimizer) {
  const auto net = nn::make_model(
      "resnet18", {.input = {16, 16, 3}, .classes = 10, .width = 0.0625, .dropout = 0.2});
  const auto rule = make_auxiliary_rule("adaptive");
  const LocalNet local(*net, *rule,
                       std::vector<std::int64_t>(static_cast<std::size_t>(net->unit_count()), 16));
  LocalBlock block(context, local.range(0, 2), local.input_sample(0), optimizer, 1);
  const bool meta = context->is_meta();
  const Shape sample = local.input_sample(0);
  PhaseRecorder phases(context, sample, format, kBatch);
  nn::Batch data = host_data(sample, format, kBatch);
  std::vector<float> features(
      static_cast<std::size_t>(meta ? 0 : kBatch * block.output_sample_shape().numel()));
  Outcome outcome;
  for (int step = 0; step < 8; ++step) {
    for (float& value : format ? data.tables : data.images) value *= 0.9F;
    const nn::StepOptions options{
        .rate_factor = 1.0 / (1 + step),
        .dropout_key = random_key(9, Purpose::dropout, static_cast<std::uint64_t>(step))};
    phases.run(fmt::format("step {}", step), [&] {
      std::vector<double> losses;
      for (const nn::StepResult& result :
           block.train(meta ? phases.batch(kBatch) : nn::host_batch(data, sample), options))
        losses.push_back(result.loss);
      outcome.losses.push_back(losses);
    });
    if (step == 3) block.evaluate(phases.batch(kBatch));
    if (step == 4) block.forward(phases.batch(kBatch), meta ? nullptr : features.data());
    if (step == 5 && !meta) {
      block.leave_device();
      block.return_to_device();
    }
  }
  outcome.replays = block.replays();
  if (!meta) outcome.state = block.state();
  outcome.peaks = std::move(phases).peaks();
  return outcome;
}

TEST(BlockReplay, HasTheBitsAndTheMemoryOfStepsMadeCallByCall) {
#if !defined(NF_SIMT)
  GTEST_SKIP() << "this build has no emulator";
#endif
  const auto device = [](bool graphs) {
    return ContextOptions{.device = {.kind = DeviceKind::simt},
                          .budget = std::int64_t{64} << 20,
                          .threads = 1,
                          .graphs = graphs};
  };
  // Clipped gradients are updated together, others at once.
  const nn::OptimizerOptions clipped{.learning_rate = 0.02, .max_gradient_norm = 3.0};
  const nn::OptimizerOptions at_once{.learning_rate = 0.02};
  for (const auto& [format, optimizer] :
       {std::pair{std::optional<nn::PixelFormat>(), clipped},
        std::pair{std::optional<nn::PixelFormat>(), at_once},
        std::pair{std::optional(nn::PixelFormat{{14, 17, 3}, 3}), clipped}}) {
    SCOPED_TRACE(
        fmt::format("{}, norm {}", format ? "pixels" : "values", optimizer.max_gradient_norm));
    const Outcome replayed = train(Context::create(device(true)), format, optimizer);
    const Outcome eager = train(Context::create(device(false)), format, optimizer);
    // Step 0 warms up; behind the block's return step 6 does.
    EXPECT_EQ(replayed.replays, 6);
    EXPECT_EQ(eager.replays, 0);
    EXPECT_EQ(replayed.losses, eager.losses);
    ASSERT_EQ(replayed.losses.front().size(), 3U);
    for (const auto& [name, value] : eager.state)
      EXPECT_EQ(replayed.state.at(name).values, value.values) << name;
    EXPECT_EQ(replayed.peaks, train(make_meta_context(device(true)), format, optimizer).peaks);
  }
}

}  // namespace
}  // namespace nf::test
