// Counts the instructions that a call executes, whatever else the machine does: the processor stops
// behind each of them (x86's trap flag) for a handler to look at the next. That needs neither the
// rights that perf needs nor an emulator, which would have to know AVX-512. It takes some ten
// microseconds an instruction. String instructions (rep) count once for each repetition.
#pragma once

#include <cstdint>
#include <functional>

namespace nf::bench {

struct Instructions {
  std::int64_t own = 0;  // of this program and what is linked into it
  // Of these: instructions in the encodings of AVX and AVX-512 with an operand in memory, whether
  // loads, stores or arithmetic, and fused multiply-adds.
  std::int64_t vector_accesses = 0;
  std::int64_t multiply_adds = 0;
  std::int64_t elsewhere = 0;  // shared libraries, generated code
};

/// Whether this system can; not under a debugger, which the traps would go to.
bool can_count_instructions();

/// Of the calling thread, which must neither start threads nor block SIGTRAP meanwhile: a trap that
/// is blocked ends the process. Not from two threads at a time.
Instructions count_instructions(const std::function<void()>& run);

}  // namespace nf::bench
