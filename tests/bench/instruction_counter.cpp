#include "tests/bench/instruction_counter.h"

#include "engine/error.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#include <signal.h>
#include <ucontext.h>

// The program's code, as the linker lays it out.
extern "C" const char __executable_start;
extern "C" const char etext;

namespace nf::bench {
namespace {

// A handler takes no arguments. It runs inside of calls that the compiler cannot look through, so
// that the counts are in memory when it does.
Instructions counted;

// Of instructions encoded by VEX or EVEX (Intel 64 and IA-32 Architectures Software Developer's
// Manual, volume 2, 2.3 and 2.7).
struct VectorEncoding {
  bool is_vector = false;
  int map = 0;
  unsigned char opcode = 0, modrm = 0;
};

VectorEncoding decode(const unsigned char* at) {
  // Prefixes of segment and address size; others do not go with these encodings.
  while (at[0] == 0x64 || at[0] == 0x65 || at[0] == 0x67) ++at;
  switch (at[0]) {
    case 0xC5:
      return {true, 1, at[2], at[3]};
    case 0xC4:
      return {true, at[1] & 0x1F, at[3], at[4]};
    case 0x62:
      return {true, at[1] & 0x07, at[4], at[5]};
    default:
      return {};
  }
}

void look_at_next(int, siginfo_t*, void* context) {
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  const auto* at = reinterpret_cast<const unsigned char*>(registers[REG_RIP]);
  const auto* begin = reinterpret_cast<const unsigned char*>(&__executable_start);
  const auto* end = reinterpret_cast<const unsigned char*>(&etext);
  if (at < begin || at >= end) {
    ++counted.elsewhere;
    return;
  }
  ++counted.own;
  const VectorEncoding vector = decode(at);
  if (!vector.is_vector) return;
  constexpr int kZeroUpper = 0x77;  // the only one without operands
  if (vector.modrm >> 6 != 3 && !(vector.map == 1 && vector.opcode == kZeroUpper))
    ++counted.vector_accesses;
  // 96 to 9F, A6 to AF and B6 to BF of map 0F38.
  const int row = vector.opcode >> 4, column = vector.opcode & 0xF;
  if (vector.map == 2 && row >= 0x9 && row <= 0xB && column >= 6) ++counted.multiply_adds;
}

// The processor traps behind each instruction while this lives; the kernel clears the flag for
// handlers.
class TrapFlag {
 public:
  // Below the red zone, where the compiler may keep values.
  TrapFlag() {
    asm volatile(
        "lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
        "lea 128(%%rsp), %%rsp" ::
            : "memory", "cc");
  }
  ~TrapFlag() {
    asm volatile(
        "lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\t"
        "lea 128(%%rsp), %%rsp" ::
            : "memory", "cc");
  }
  TrapFlag(const TrapFlag&) = delete;
  TrapFlag& operator=(const TrapFlag&) = delete;
};

}  // namespace

Instructions count_instructions(const std::function<void()>& run) {
  struct sigaction ours = {}, before = {};
  ours.sa_sigaction = look_at_next;
  ours.sa_flags = SA_SIGINFO;
  NF_CHECK(sigaction(SIGTRAP, &ours, &before) == 0, "instructions: no handler for SIGTRAP");
  counted = {};
  try {
    const TrapFlag stepping;
    run();
  } catch (...) {
    sigaction(SIGTRAP, &before, nullptr);
    throw;
  }
  sigaction(SIGTRAP, &before, nullptr);
  return counted;
}

bool can_count_instructions() {
  return count_instructions([] {}).own > 0;
}

}  // namespace nf::bench

#else

namespace nf::bench {

Instructions count_instructions(const std::function<void()>&) {
  fail("instructions: only on x86-64 with Linux");
}

bool can_count_instructions() { return false; }

}  // namespace nf::bench
#endif
