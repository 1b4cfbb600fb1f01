// CUDA's libraries load without a device: their functions are there, a missing one is named.
#include "engine/backends/cuda/libraries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "engine/error.h"
#include "engine/tensor.h"

namespace nf::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

template <typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

std::string mapped_files() {
  std::stringstream text;
  text << std::ifstream("/proc/self/maps").rdbuf();
  return text.str();
}

// In a process of its own: another test may have asked for a device.
TEST(CudaLibraries, AreNotThereForWhoComputesOnTheCpu) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto compute = [] {
    const ContextPtr context = Context::create({.budget = 1 << 20});
    Tensor::full(context, {8}, 1.0);
    const std::string files = mapped_files();
    std::fprintf(stderr, "libc %d cublas %d cudnn %d", files.find("libc.so") != files.npos,
                 files.find("libcublas") != files.npos, files.find("libcudnn") != files.npos);
    std::exit(0);
  };
  EXPECT_EXIT(compute(), testing::ExitedWithCode(0), "libc 1 cublas 0 cudnn 0");
}

TEST(CudaLibraries, AnswerOnceLoaded) {
  EXPECT_STREQ(cublas().cublasLtGetStatusString(CUBLAS_STATUS_NOT_INITIALIZED),
               "the library was not initialized");
  EXPECT_STREQ(cudnn().cudnnGetErrorString(CUDNN_STATUS_NOT_INITIALIZED),
               "CUDNN_STATUS_NOT_INITIALIZED");
  EXPECT_THAT(mapped_files(), AllOf(HasSubstr("libcublasLt.so"), HasSubstr("libcudnn.so")));
}

TEST(CudaLibraries, AMissingOneIsNamedOnOneLine) {
  const std::string message = message_of([] { SharedLibrary("libnowhere.so.7"); });
  EXPECT_THAT(message, AllOf(HasSubstr("can't load libnowhere.so.7"),
                             HasSubstr("No such file or directory"), Not(HasSubstr("\n"))));
}

TEST(CudaLibraries, AMissingFunctionIsNamedWithItsLibrary) {
  const SharedLibrary library("libm.so.6");
  EXPECT_EQ(library.function<double (*)(double)>("floor")(2.5), 2.0);
  EXPECT_EQ(message_of([&] { library.function<void (*)()>("floor_of_heaven"); }),
            "cuda: libm.so.6 has no function floor_of_heaven");
}

}  // namespace
}  // namespace nf::cuda
