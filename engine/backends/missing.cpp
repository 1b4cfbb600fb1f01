// The backends that this build was made without.
#include "engine/backend.h"
#include "engine/error.h"
#include "engine/gpu_energy.h"

namespace nf {

#if !defined(NF_SIMT)
std::unique_ptr<Backend> make_simt_backend(const CpuOptions&) {
  fail("simt: this build has no emulator (it was configured with NF_SIMT=OFF, or for a sanitizer)");
}
#endif

#if !defined(NF_CUDA)
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions&) {
  fail("cuda: this build has no CUDA (it was configured with NF_CUDA=OFF, or found no toolkit)");
}

std::optional<double> cuda_joules(int) { return std::nullopt; }
#endif

}  // namespace nf
