// Skips every test, by name, where no GPU answers.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

namespace {

class SkipWithoutGpu : public ::testing::EmptyTestEventListener {
 public:
  void OnTestStart(const ::testing::TestInfo&) override {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0)
      GTEST_SKIP() << "no GPU answers: " << cudaGetErrorString(status);
  }
};

// googletest owns it.
[[maybe_unused]] const bool registered = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new SkipWithoutGpu);
  return true;
}();

}  // namespace
