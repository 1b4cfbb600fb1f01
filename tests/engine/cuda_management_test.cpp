// What is asked of the driver's management library, by a stand-in for it.
#include "engine/backends/cuda/management.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace nf::cuda {
namespace {

constexpr const char* kDevice = "0000:3B:00.0";

class CudaManagement : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(NF_TEST_STAND_IN_NVML))
      GTEST_SKIP() << "the stand-in stayed on the machine that it was built on";
  }
};

TEST_F(CudaManagement, TellsMemoryAndEnergyOfADevice) {
  const Management management(NF_TEST_STAND_IN_NVML);
  EXPECT_EQ(management.used_bytes(kDevice), 30);
  const std::optional<double> before = management.joules(kDevice);
  ASSERT_TRUE(before);
  EXPECT_DOUBLE_EQ(*before, 1502.0);
  EXPECT_DOUBLE_EQ(*management.joules(kDevice) - *before, 2.0);
}

TEST_F(CudaManagement, NoAnswerIsNoFigure) {
  const Management management(NF_TEST_STAND_IN_NVML);
  EXPECT_FALSE(management.used_bytes("0000:3C:00.0"));
  EXPECT_FALSE(management.joules("0000:3C:00.0"));
  for (const char* library : {"libnowhere.so.7", "libm.so.6"}) {
    EXPECT_FALSE(Management(library).used_bytes(kDevice)) << library;
    EXPECT_FALSE(Management(library).joules(kDevice)) << library;
  }
}

}  // namespace
}  // namespace nf::cuda
