#include "kernels/emulator/fibers.h"

#include <sys/mman.h>

#include <algorithm>

#include "kernels/kernel_error.h"

namespace nf::simt::emulator {
namespace {

namespace context = boost::context::detail;

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kStride = kStackBytes + kPageBytes;

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

void Fibers::start(context::transfer_t from) {
  auto& fibers = *static_cast<Fibers*>(from.data);
  fibers.outside_ = from.fctx;
  fibers.main_();
}

void Fibers::enter(std::size_t i) {
  Context& fiber = fibers_[i];
  if (fiber == nullptr)
    fiber = context::make_fcontext(stacks_ + (i + 1) * kStride, kStackBytes, &Fibers::start);
  fiber = context::jump_fcontext(fiber, this).fctx;
}

void Fibers::leave() { outside_ = context::jump_fcontext(outside_, nullptr).fctx; }

void Fibers::abandon() { std::fill(fibers_.begin(), fibers_.end(), nullptr); }

}  // namespace nf::simt::emulator
