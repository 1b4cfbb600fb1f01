// The choice of segments against all there are.
#include <gtest/gtest.h>

#include "neuroflux/memory_profile.h"
#include "nn/models/registry.h"

namespace nf {
namespace {

/// Every way to cut a chain of units.
std::vector<nn::Segments> all_segments(std::int64_t units) {
  std::vector<nn::Segments> all;
  for (std::uint64_t cuts = 0; cuts < std::uint64_t{1} << (units - 1); ++cuts) {
    nn::Segments segments{0};
    for (std::int64_t i = 1; i < units; ++i)
      if ((cuts >> (i - 1) & 1) != 0) segments.push_back(i);
    all.push_back(segments);
  }
  return all;
}

struct Case {
  const char* model;
  std::int64_t batch;
  double width;
};

class LeastSegments : public testing::TestWithParam<Case> {};

// With more than 10 units not all are tried.
TEST_P(LeastSegments, TakeNoMoreThanAnyOther) {
  const auto net = nn::make_model(GetParam().model, {.width = GetParam().width});
  MemoryProfiler profiler({.threads = 1}, {});
  const Workload workload{GetParam().batch, GetParam().batch, {}, false};
  const nn::Segments chosen = profiler.least_segments(*net, workload);
  const std::int64_t peak = profiler.checkpoint_peak(*net, workload, chosen);
  std::int64_t least = peak;
  std::size_t fewest = chosen.size();
  for (const nn::Segments& segments : all_segments(net->unit_count())) {
    const std::int64_t other = profiler.checkpoint_peak(*net, workload, segments);
    if (other < least || (other == least && segments.size() < fewest)) {
      least = other;
      fewest = segments.size();
    }
  }
  if (net->unit_count() > 10) {
    EXPECT_LE(static_cast<double>(peak), 1.01 * static_cast<double>(least));
  } else {
    EXPECT_EQ(peak, least);
    EXPECT_EQ(chosen.size(), fewest);
  }
  EXPECT_LE(peak, profiler.checkpoint_peak(*net, workload));
  EXPECT_LT(peak, profiler.bp_peak(*net, workload));
}

INSTANTIATE_TEST_SUITE_P(Models, LeastSegments,
                         testing::Values(Case{"vgg11", 1, 0.25}, Case{"vgg11", 64, 0.25},
                                         Case{"vgg11", 16, 1.0}, Case{"vgg16", 16, 1.0},
                                         Case{"resnet18", 32, 0.25}, Case{"resnet18", 128, 1.0}),
                         [](const auto& info) {
                           return fmt::format("{}_{}_{:.0f}", info.param.model, info.param.batch,
                                              100 * info.param.width);
                         });

}  // namespace
}  // namespace nf
