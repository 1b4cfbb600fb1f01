// The large rows of the case table reach what they are there for: every loop of the CPU backend cut
// into chunks, and second blocks of channels, rows and patches. The grains are those of its loops.
#include "tests/support/op_cases.h"

#include <algorithm>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/parallel.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

int parts(std::int64_t range, std::int64_t grain) {
  return cpu::chunks(kThreads, range, std::max<std::int64_t>(grain, 1));
}

/// Parts of a loop over rows whose grain is counted in elements.
int row_parts(std::int64_t rows, std::int64_t row_elements, std::int64_t grain = cpu::kGrain) {
  return parts(rows, grain / row_elements);
}

template <typename Case, typename Predicate>
void expect_some(const std::vector<Case>& cases, const char* what, Predicate holds) {
  EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), holds)) << "no case has " << what;
}

Conv2dProblem problem_of(const Conv2dCase& p) {
  return {DType::f32, p.n, p.h, p.w, p.c, p.o, p.kh, p.kw, p.stride, p.padding, p.groups};
}

/// Bytes of all the patches that the convolution sees.
std::int64_t patch_bytes(const Conv2dCase& p) {
  return p.n * p.out_h() * p.out_w() * p.kh * p.kw * p.c / p.groups * size_of(DType::f32);
}

TEST(OpCases, ConvolutionsNeedSeveralTilesInEachThread) {
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight})
    expect_some(conv2d_cases(), "more patches than its tiles hold", [&](const Conv2dCase& p) {
      const std::int64_t tiles = cpu::gemm_conv2d_workspace(problem_of(p), pass, kThreads);
      return p.groups == 1 && p.n >= kThreads && parts(p.o, 8) > 1 && tiles > 0 &&
             patch_bytes(p) > tiles;
    });
}

TEST(OpCases, ConvolutionsOfManyWeightsTakeTheDirectPath) {
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight})
    for (const std::int64_t stride : {1, 2})
      expect_some(conv2d_cases(), "many weights for few cells", [&](const Conv2dCase& p) {
        // Second blocks of channels, in and out, and rests of vectors.
        return p.stride == stride && p.c > 64 && p.o > 64 && p.c % 16 > 1 &&
               cpu::direct_conv2d_pays(problem_of(p), pass);
      });
}

TEST(OpCases, OneByOneFiltersTakeThePointwisePath) {
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight})
    expect_some(conv2d_cases(), "1x1 filters of many channels", [&](const Conv2dCase& p) {
      // Second tiles of channels, and a rest of whole vectors.
      return p.c > 2 * 64 && p.c % 64 != 0 && cpu::pointwise_conv2d_pays(problem_of(p), pass);
    });
}

TEST(OpCases, DepthwiseConvolutionsAreCutIntoChunks) {
  for (const std::int64_t stride : {1, 2})
    expect_some(conv2d_cases(), "a large depthwise convolution", [&](const Conv2dCase& p) {
      const Conv2dProblem problem = problem_of(p);
      // The weight's gradient has one copy of the filters per chunk.
      return problem.depthwise() && p.stride == stride && p.c > 32 && p.c % 32 != 0 &&
             cpu::depthwise_conv2d_workspace(problem, Pass::backward_weight, kThreads) >
                 cpu::depthwise_conv2d_workspace(problem, Pass::forward, kThreads);
    });
}

TEST(OpCases, BiasesHaveManyRowsAndChannels) {
  const auto rows_are_cut = [](std::int64_t rows) { return row_parts(rows, 64) > 1; };
  expect_some(conv2d_cases(), "a bias of many rows", [&](const Conv2dCase& p) {
    return p.bias && p.o > 2 * 64 && rows_are_cut(p.n * p.out_h() * p.out_w());
  });
  expect_some(linear_cases(), "a bias of many rows",
              [&](const LinearCase& p) { return p.bias && p.o > 64 && rows_are_cut(p.n); });
}

TEST(OpCases, LinearLayersAreCutIntoChunks) {
  const auto grain = [](std::int64_t inner, std::int64_t columns) {
    return (1 << 17) / (inner * columns) + 1;
  };
  expect_some(linear_cases(), "several chunks", [&](const LinearCase& p) {
    return parts(p.n, grain(p.i, p.o)) > 1 && parts(p.o, grain(p.n, p.i)) > 1;
  });
}

TEST(OpCases, BatchNormsAreCutIntoChunks) {
  const auto cut = [](const BatchNormCase& p) {
    return row_parts(p.x.numel() / p.x[-1], p.x[-1]) > 1;
  };
  for (const bool residual : {false, true})
    expect_some(batch_norm_cases(), "several chunks", [&](const BatchNormCase& p) {
      return cut(p) && p.residual == residual && p.activation != Activation::none;
    });
  expect_some(batch_norm_cases(), "more channels than have their scale on the stack",
              [&](const BatchNormCase& p) { return cut(p) && p.x[-1] > 512; });
}

TEST(OpCases, PoolingIsCutIntoChunks) {
  expect_some(pool2d_cases(), "several chunks and blocks of channels", [](const Pool2dCase& p) {
    return p.c > 2 * 64 && row_parts(p.n * p.out_h(), p.out_w() * p.c) > 1 &&
           row_parts(p.n * p.h, p.w * p.c) > 1;
  });
  expect_some(adaptive_pool_cases(), "several chunks and blocks of channels",
              [](const AdaptivePoolCase& p) {
                return p.c > 2 * 64 && row_parts(p.n * p.out_h, p.out_w * p.c) > 1 &&
                       row_parts(p.n * p.h, p.w * p.c) > 1;
              });
}

TEST(OpCases, ElementwiseOperatorsAreCutIntoChunks) {
  expect_some(elementwise_cases(), "several chunks",
              [](const ElementwiseCase& p) { return parts(p.x.numel(), cpu::kGrain) > 1; });
  // In blocks of 64 elements.
  expect_some(dropout_cases(), "several chunks",
              [](const DropoutCase& p) { return parts(p.x.numel() / 64, 32) > 1; });
}

TEST(OpCases, ReductionsAreCutIntoChunksAndParts) {
  constexpr std::int64_t kLeastPart = 8192;
  expect_some(reduce_cases(), "rows that threads share", [](const ReduceCase& p) {
    const std::int64_t columns = p.x.numel() / p.x[0];
    return columns < 2 * kLeastPart && parts(p.x[0], cpu::kGrain / columns + 1) > 1;
  });
  expect_some(reduce_cases(), "several rows in parts", [](const ReduceCase& p) {
    return p.x[0] > 1 && p.x.numel() / p.x[0] >= 2 * kLeastPart;
  });
  expect_some(reduce_cases(), "a whole in parts that threads share",
              [](const ReduceCase& p) { return parts(p.x.numel() / kLeastPart, 2) == kThreads; });
}

TEST(OpCases, LossesAreCutIntoChunksAndRunsOfRows) {
  constexpr std::int64_t kRowsAtOnce = 512;
  const auto cut = [](const CrossEntropyCase& p, std::int64_t rows) {
    return parts(rows, 2048 / p.c + 1) > 1;
  };
  expect_some(cross_entropy_cases(), "three runs of rows", [&](const CrossEntropyCase& p) {
    return p.n > 2 * kRowsAtOnce && cut(p, kRowsAtOnce);
  });
  expect_some(cross_entropy_cases(), "many classes in several chunks",
              [&](const CrossEntropyCase& p) { return p.c >= 100 && cut(p, p.n); });
}

}  // namespace
}  // namespace nf::test
