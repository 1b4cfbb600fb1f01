#include "engine/backends/cpu/cpu_backend.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "engine/backends/cpu/address_range.h"
#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/instruction_set.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "engine/cores.h"

namespace nf {
namespace cpu {
namespace {

// Cache lines, and what the widest vector loads like best.
constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kCopyGrain = std::int64_t{256} << 10;

int threads_for(const CpuOptions& options) {
  NF_CHECK(options.threads >= 0 && options.threads <= kMaxThreads,
           "cpu: threads must be 0 (one per core) to {}, got {}", kMaxThreads, options.threads);
#if defined(NF_OPENMP)
  if (options.threads > 0) return options.threads;
  return std::min(usable_cores(), kMaxThreads);
#else
  return 1;
#endif
}

void copy_bytes(int threads, void* dst, const void* src, std::int64_t bytes) {
  parallel_for(threads, bytes, kCopyGrain, [=](std::int64_t begin, std::int64_t end, int) {
    std::memcpy(static_cast<std::byte*>(dst) + begin, static_cast<const std::byte*>(src) + begin,
                static_cast<std::size_t>(end - begin));
  });
}

}  // namespace

CpuBackend::CpuBackend(const CpuOptions& options) : threads_(threads_for(options)) {
  instruction_set();  // what is wrong with the environment is said here, not in a kernel
#if defined(NF_ONEDNN)
  if (options.onednn) onednn_ = make_onednn(threads_);
#endif
}

// Where filters outweigh the maps by far they decide what memory a step needs, and gathering
// channels of few places costs next to nothing.
std::int64_t CpuBackend::conv2d_weight_parts(const Conv2dProblem& p) const {
  constexpr std::int64_t kParts = 4, kVector = 16, kOutweigh = 4;
  constexpr std::int64_t kManyFilters = std::int64_t{1} << 16;  // values
  const std::int64_t filters = p.o * p.kh * p.kw * p.c;
  const std::int64_t maps = p.n * (p.h * p.w * p.c + p.out_h() * p.out_w() * p.o);
  const bool many = filters >= kManyFilters && filters >= kOutweigh * maps;
  if (!many || p.groups != 1 || p.o % (kParts * kVector) != 0) return 1;
  // Winograd's points of a part would be as large as all filters.
  Conv2dProblem part = p;
  part.o /= kParts;
  return winograd_conv2d_pays(part, Pass::backward_weight) ? 1 : kParts;
}

std::string_view CpuBackend::name() const { return "cpu"; }

std::int64_t CpuBackend::alignment() const { return kAlignment; }

std::unique_ptr<AddressRange> CpuBackend::reserve(std::int64_t bytes) {
  return std::make_unique<HostRange>(bytes);
}

std::int64_t CpuBackend::memory_bytes() const {
  return std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

void CpuBackend::synchronize() {}

bool CpuBackend::computes_in(DType dtype) const {
  return dtype == DType::f32 || dtype == DType::f64;
}

void CpuBackend::copy_from_host(View dst, const void* src) {
  copy_bytes(threads_, dst.data, src, dst.numel() * size_of(dst.dtype));
}

void CpuBackend::copy_to_host(void* dst, ConstView src) {
  copy_bytes(threads_, dst, src.data, src.numel() * size_of(src.dtype));
}

void CpuBackend::copy(View dst, ConstView src) {
  NF_CHECK(dst.dtype == src.dtype && dst.numel() == src.numel(),
           "copy: source {} {} does not fit destination {} {}", to_string(src.dtype),
           src.shape.str(), to_string(dst.dtype), dst.shape.str());
  copy_bytes(threads_, dst.data, src.data, dst.numel() * size_of(dst.dtype));
}

void CpuBackend::copy_columns(View dst, ConstView src, std::int64_t first) {
  check_columns(dst, src, first);
  const std::int64_t size = size_of(src.dtype), width = dst.shape[1] * size,
                     columns = src.shape[1] * size;
  auto* to = dst.as<std::byte>();
  const auto* from = src.as<std::byte>() + first * size;
  parallel_for(threads_, dst.shape[0], kCopyGrain / std::max<std::int64_t>(width, 1),
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t i = begin; i < end; ++i)
                   std::memcpy(to + i * width, from + i * columns, static_cast<std::size_t>(width));
               });
}

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<cpu::CpuBackend>(options);
}

}  // namespace nf
