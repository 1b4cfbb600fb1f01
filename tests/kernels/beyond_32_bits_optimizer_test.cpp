// Positions beyond 2^31 in the optimizers' tensors: a small tensor, then one that ends beyond 2^31,
// where its pointers are aligned and where not. The last block, which runs alone, has what is left
// over from chunks of 4096.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/optimizer.h"
#include "tests/kernels/device.h"
#include "tests/kernels/emulated.h"

namespace nf::simt::test {
namespace {

using std::int64_t;

constexpr int64_t kBeyond = int64_t{1} << 31;
constexpr int64_t kChunk = 4096, kSize = kBeyond + 3 * kChunk + 19, kLastChunk = kSize - 19;
static_assert(kLastChunk % kChunk == 0);

/// `count` arrays of kSize floats, `offset` behind an aligned address.
class Arrays {
 public:
  Arrays(std::size_t count, int64_t offset) : offset_(offset) {
    for (std::size_t i = 0; i < count; ++i)
      arrays_.push_back(std::make_unique<HugeArray<float>>(kSize + offset));
  }
  bool failed() const {
    for (const auto& array : arrays_)
      if (array->failed()) return true;
    return false;
  }
  float* operator[](std::size_t i) { return arrays_[i]->data() + offset_; }
  void fill(std::size_t array, float value) {
    for (int64_t i = kLastChunk - 8; i < kSize; ++i) (*this)[array][i] = value;
  }
  void expect(std::size_t array, float before, float value) {
    for (int64_t i = kLastChunk - 8; i < kSize; ++i)
      EXPECT_EQ((*this)[array][i], i < kLastChunk ? before : value)
          << "array " << array << ", " << i - kLastChunk << " behind the chunk's begin";
  }

 private:
  int64_t offset_;
  std::vector<std::unique_ptr<HugeArray<float>>> arrays_;
};

class KernelsBeyond32BitsOptimizer : public ::testing::TestWithParam<int64_t> {
 protected:
  DeviceArray<float> small_{std::vector<float>(4, 0.0F)};
};
INSTANTIATE_TEST_SUITE_P(Offsets, KernelsBeyond32BitsOptimizer, ::testing::Values(0, 1));

TEST_P(KernelsBeyond32BitsOptimizer, Sgd) {
  Arrays arrays(3, GetParam());
  if (arrays.failed()) GTEST_SKIP() << "no 24 GiB of addresses";
  arrays.fill(0, 1);
  arrays.fill(1, 2);
  arrays.fill(2, 4);
  float* few = small_.data();
  const SgdTensor tensors[]{{few, few + 1, few + 2, 1}, {arrays[0], arrays[1], arrays[2], kSize}};
  const WithOptions last({.only = {-1}});
  sgd(kStream, tensors, 2, {.learning_rate = 0.5, .momentum = 0.5});
  arrays.expect(0, 1, -1);  // 1 - 0.5 * 4
  arrays.expect(2, 4, 4);   // 0.5 * 4 + 2
}

TEST_P(KernelsBeyond32BitsOptimizer, AdamW) {
  Arrays arrays(4, GetParam());
  if (arrays.failed()) GTEST_SKIP() << "no 32 GiB of addresses";
  arrays.fill(0, 1);
  arrays.fill(1, 2);
  float* few = small_.data();
  const AdamWTensor tensors[]{{few, few + 1, few + 2, few + 3, 1},
                              {arrays[0], arrays[1], arrays[2], arrays[3], kSize}};
  const WithOptions last({.only = {-1}});
  adamw(kStream, tensors, 2, {.learning_rate = 0.5, .beta1 = 0.5, .beta2 = 0.75, .eps = 0});
  arrays.expect(0, 1, 0.5);  // both moments as corrected give a step of one learning rate
  arrays.expect(2, 0, 1);
  arrays.expect(3, 0, 1);
}

TEST_P(KernelsBeyond32BitsOptimizer, NormClipAndFinite) {
  Arrays arrays(1, GetParam());
  if (arrays.failed()) GTEST_SKIP() << "no 8 GiB of addresses";
  arrays.fill(0, 0);
  arrays[0][kLastChunk] = 3;
  arrays[0][kSize - 1] = 4;
  const GradientTensor tensors[]{{small_.data(), 4}, {arrays[0], kSize}};
  HugeArray<double> workspace(gradient_norm_workspace(tensors, 2) / 8);
  DeviceArray<float> norm(1);
  DeviceArray<std::int32_t> flag(std::vector<std::int32_t>{1});
  const WithOptions last({.only = {-1}});
  gradient_norm(kStream, tensors, 2, norm.data(), workspace.data());
  EXPECT_EQ(norm.host()[0], 5);
  norm.data()[0] = 2;
  clip_gradients(kStream, tensors, 2, norm.data(), 1);
  const float factor = 1 / (2 + 1e-6F);
  EXPECT_EQ(arrays[0][kLastChunk], 3 * factor);
  EXPECT_EQ(arrays[0][kSize - 1], 4 * factor);
  gradients_finite(kStream, tensors, 2, flag.data());
  EXPECT_EQ(flag.host()[0], 1);
  arrays[0][kSize - 1] = INFINITY;
  gradients_finite(kStream, tensors, 2, flag.data());
  EXPECT_EQ(flag.host()[0], 0);
}

TEST(KernelsBeyond32BitsLimits, MoreElementsThanAGridHasChunksAreRefused) {
  float* none = nullptr;
  const GradientTensor tensor{none, (int64_t{1} << 42) + 1};
  DeviceArray<std::int32_t> flag(1);
  EXPECT_THROW(gradients_finite(kStream, &tensor, 1, flag.data()), KernelError);
}

}  // namespace
}  // namespace nf::simt::test
