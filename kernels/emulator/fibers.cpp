#include "kernels/emulator/fibers.h"

#include <sys/mman.h>

#include <utility>

#include "kernels/kernel_error.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace nf::simt::emulator {
namespace {

namespace context = boost::context::detail;

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kStride = kStackBytes + kPageBytes;

// AddressSanitizer keeps book of stacks: whoever leaves one says where to, whoever arrives that it
// has, and where from.
#if defined(__SANITIZE_ADDRESS__)
void leaving(void** kept, const void* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(kept, stack, bytes);
}
void arrived(void* kept, const void** from, std::size_t* bytes) {
  __sanitizer_finish_switch_fiber(kept, from, bytes);
}
void forget_frames(const void* stack, std::size_t bytes) {
  __asan_unpoison_memory_region(stack, bytes);
}
#else
void leaving(void**, const void*, std::size_t) {}
void arrived(void*, const void**, std::size_t*) {}
void forget_frames(const void*, std::size_t) {}
#endif

}  // namespace

Fibers::Fibers(std::size_t count, Main main)
    : main_(main), fibers_(count, nullptr), stacks_bytes_(count * kStride) {
  void* memory = mmap(nullptr, stacks_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw KernelError("emulator: no memory for the threads' stacks");
  stacks_ = static_cast<std::byte*>(memory);
  for (std::size_t i = 0; i < count; ++i) mprotect(stacks_ + i * kStride, kPageBytes, PROT_NONE);
}

Fibers::~Fibers() { munmap(stacks_, stacks_bytes_); }

// Its lowest byte.
std::byte* Fibers::stack(std::size_t i) const { return stacks_ + i * kStride + kPageBytes; }

void Fibers::start(context::transfer_t from) {
  auto& fibers = *static_cast<Fibers*>(from.data);
  arrived(nullptr, &fibers.outside_stack_, &fibers.outside_bytes_);
  fibers.outside_ = from.fctx;
  fibers.main_();
}

void Fibers::enter(std::size_t i) {
  Context& fiber = fibers_[i];
  if (fiber == nullptr)
    fiber = context::make_fcontext(stack(i) + kStackBytes, kStackBytes, &Fibers::start);
  void* kept = nullptr;
  leaving(&kept, stack(i), kStackBytes);
  fiber = context::jump_fcontext(fiber, this).fctx;
  arrived(kept, nullptr, nullptr);
}

void Fibers::leave() {
  void* kept = nullptr;
  leaving(&kept, outside_stack_, outside_bytes_);
  outside_ = context::jump_fcontext(outside_, nullptr).fctx;
  arrived(kept, &outside_stack_, &outside_bytes_);
}

void Fibers::abandon() {
  for (std::size_t i = 0; i < fibers_.size(); ++i)
    if (std::exchange(fibers_[i], nullptr) != nullptr) forget_frames(stack(i), kStackBytes);
}

}  // namespace nf::simt::emulator
