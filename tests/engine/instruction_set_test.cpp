#include "engine/backends/cpu/instruction_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace nf::cpu {
namespace {

TEST(InstructionSet, IsTheMostThatIsAllowedAndThere) {
  const char* named = std::getenv("NEUROFLUX_CPU_ISA");
  EXPECT_EQ(to_string(allowed_instruction_set()),
            named == nullptr || *named == 0 ? std::string_view("avx512") : named);
#if defined(NF_SETS_AT_RUN_TIME)
  InstructionSet machine = InstructionSet::baseline;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    machine = InstructionSet::avx2;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    machine = InstructionSet::avx512;
  EXPECT_EQ(instruction_set(), std::min(machine, allowed_instruction_set()));
#else
  EXPECT_LE(instruction_set(), allowed_instruction_set());
#endif
}

}  // namespace
}  // namespace nf::cpu
