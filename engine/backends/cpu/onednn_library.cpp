#include "engine/backends/cpu/onednn_library.h"

#include "engine/backends/cpu/instruction_set.h"

#if defined(NF_OPENMP)
#include <omp.h>
#endif

namespace nf::cpu {
namespace {

const char* to_string(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return "forward";
    case Pass::backward_input:
      return "backward_input";
    case Pass::backward_weight:
      return "backward_weight";
  }
  return "?";
}

// What holds for our own kernels holds for the library, whatever its own variable says.
dnnl::status limit_instruction_set() {
  const InstructionSet allowed = allowed_instruction_set();
  if (allowed == InstructionSet::avx512) return dnnl::status::success;
  return dnnl::set_max_cpu_isa(allowed == InstructionSet::avx2 ? dnnl::cpu_isa::avx2
                                                               : dnnl::cpu_isa::sse41);
}

}  // namespace

#if defined(NF_OPENMP)
LibraryThreads::LibraryThreads(int threads) : before_(omp_get_max_threads()) {
  if (threads != before_) omp_set_num_threads(threads);
}
LibraryThreads::~LibraryThreads() {
  if (before_ != omp_get_max_threads()) omp_set_num_threads(before_);
}
#else
// Without our own OpenMP the library's takes the threads that its environment says.
LibraryThreads::LibraryThreads(int) {}
LibraryThreads::~LibraryThreads() = default;
#endif

void DnnlCall::run(const dnnl::stream& stream, void* scratchpad) {
  if (primitive.get(true) == nullptr) primitive = dnnl::primitive(description.get());
  if (operands.contains(DNNL_ARG_SCRATCHPAD)) bind(DNNL_ARG_SCRATCHPAD, scratchpad);
  primitive.execute(stream, operands);
}

std::string describe(const Conv2dProblem& p, Pass pass) {
  return fmt::format(
      "conv2d {} of [{},{},{},{}] with [{},{},{},{}], stride {}, padding {}, groups {}",
      to_string(pass), p.n, p.h, p.w, p.c, p.o, p.kh, p.kw, p.c / p.groups, p.stride, p.padding,
      p.groups);
}

std::string describe(const LinearProblem& p, Pass pass) {
  return fmt::format("linear {} of [{},{}] with [{},{}]", to_string(pass), p.n, p.i, p.o, p.i);
}

OneDnnLibrary::OneDnnLibrary(int threads) : threads_(threads) {}

std::unique_ptr<OneDnn> make_onednn(int threads) {
  static const dnnl::status limited = limit_instruction_set();
  NF_CHECK(limited == dnnl::status::success, "cpu: oneDNN cannot be held to {}: {}",
           to_string(allowed_instruction_set()),
           limited == dnnl::status::invalid_arguments ? "it was used before"
                                                      : "it is built without this choice");
  return std::make_unique<OneDnnLibrary>(threads);
}

}  // namespace nf::cpu
