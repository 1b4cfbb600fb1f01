#include "kernels/emulator/machine.h"

// What g++ calls before each access of code compiled with -fsanitize=thread.
extern "C" {
using nf::simt::emulator::AccessKind;
using nf::simt::emulator::on_access;
#define NF_HOOKS(bytes)                                                  \
  void __tsan_read##bytes(void* p) {                                     \
    on_access(p, bytes, AccessKind::read, __builtin_return_address(0));  \
  }                                                                      \
  void __tsan_write##bytes(void* p) {                                    \
    on_access(p, bytes, AccessKind::write, __builtin_return_address(0)); \
  }
NF_HOOKS(1)
NF_HOOKS(2)
NF_HOOKS(4)
NF_HOOKS(8)
NF_HOOKS(16)
#undef NF_HOOKS
#define NF_HOOKS(bytes)                                                  \
  void __tsan_unaligned_read##bytes(void* p) {                           \
    on_access(p, bytes, AccessKind::read, __builtin_return_address(0));  \
  }                                                                      \
  void __tsan_unaligned_write##bytes(void* p) {                          \
    on_access(p, bytes, AccessKind::write, __builtin_return_address(0)); \
  }
NF_HOOKS(2)
NF_HOOKS(4)
NF_HOOKS(8)
NF_HOOKS(16)
#undef NF_HOOKS
void __tsan_read_range(void* p, unsigned long bytes) {
  on_access(p, bytes, AccessKind::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, unsigned long bytes) {
  on_access(p, bytes, AccessKind::write, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
