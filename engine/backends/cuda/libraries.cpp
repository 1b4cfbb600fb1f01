#include "engine/backends/cuda/libraries.h"

#include <dlfcn.h>

#include "engine/error.h"

namespace nf::cuda {
namespace {

// Where no CUDA was installed dlerror says only that the file is not there; this adds what helps.
constexpr const char* kAdvice = "LD_LIBRARY_PATH may name its folder";

}  // namespace

SharedLibrary::SharedLibrary(const std::string& soname)
    : soname_(soname), handle_(dlopen(soname.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
  if (handle_ != nullptr) return;
  const char* problem = dlerror();
  fail("cuda: can't load {}: {} ({})", soname, problem != nullptr ? problem : "no reason given",
       kAdvice);
}

void* SharedLibrary::symbol(const char* name) const {
  void* found = dlsym(handle_, name);
  NF_CHECK(found != nullptr, "cuda: {} has no function {}", soname_, name);
  return found;
}

#define NF_LIBRARY_FUNCTION(name) .name = library.function<decltype(&::name)>(#name),

const CublasLt& cublas() {
  static const CublasLt functions = [] {
    const SharedLibrary library(fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR));
    return CublasLt{NF_CUBLAS_LT_FUNCTIONS(NF_LIBRARY_FUNCTION)};
  }();
  return functions;
}

const Cudnn& cudnn() {
  static const Cudnn functions = [] {
    cublas();  // which cuDNN asks for by name: it is to find the one that we use
    const SharedLibrary library(fmt::format("libcudnn.so.{}", CUDNN_MAJOR));
    return Cudnn{NF_CUDNN_FUNCTIONS(NF_LIBRARY_FUNCTION)};
  }();
  return functions;
}

#undef NF_LIBRARY_FUNCTION

}  // namespace nf::cuda
