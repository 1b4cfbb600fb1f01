// That a block of units, once it has trained on a batch, makes nothing by `operator new` for the
// next. Without oneDNN, whose calls make maps of their own.
#include <gtest/gtest.h>

#include "neuroflux/local_net.h"
#include "nn/models/registry.h"
#include "tests/nn/trainers.h"
#include "tests/support/system_blocks.h"

namespace nf::test {
namespace {

constexpr std::int64_t kSteadyBatch = 6;
constexpr int kStepsBefore = 2, kSteadySteps = 3;

class SteadyBlock : public testing::TestWithParam<const char*> {};

TEST_P(SteadyBlock, MakesNothingOnTheHeap) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer blocks really go";
#endif
  const auto net = nn::make_model("resnet18", {.input = {32, 32, 3}, .classes = 10, .width = 0.25});
  const auto rule = make_auxiliary_rule(GetParam());
  const LocalNet local(*net, *rule,
                       std::vector<std::int64_t>(static_cast<std::size_t>(net->unit_count()), 16));
  const ContextPtr context =
      Context::create({.budget = std::int64_t{256} << 20, .threads = 2, .onednn = false});
  LocalBlock block(context, local.range(0, 2), local.input_sample(0), {}, 1);
  const nn::Batch batch = nn::random_batch(net->options(), kSteadyBatch);
  const nn::HostBatch host = nn::host_batch(batch, local.input_sample(0));
  std::vector<float> features(
      static_cast<std::size_t>(kSteadyBatch * block.output_sample_shape().numel()));
  const auto train = [&] { block.train(host, {.label_smoothing = 0.1}); };
  const auto evaluate = [&] { block.evaluate(host); };
  const auto forward = [&] { block.forward(host, features.data()); };
  EXPECT_EQ(blocks_of(3, [] { ::operator delete(::operator new(1)); }), 3);
  blocks_of(kStepsBefore, train);
  EXPECT_EQ(blocks_of(kSteadySteps, train), 0);
  blocks_of(kStepsBefore, evaluate);
  EXPECT_EQ(blocks_of(kSteadySteps, evaluate), 0);
  blocks_of(kStepsBefore, forward);
  EXPECT_EQ(blocks_of(kSteadySteps, forward), 0);
}

INSTANTIATE_TEST_SUITE_P(Cpu, SteadyBlock, testing::Values("adaptive", "pooled"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace nf::test
