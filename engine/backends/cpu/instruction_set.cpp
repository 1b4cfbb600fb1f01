#include "engine/backends/cpu/instruction_set.h"

#include <algorithm>
#include <cstdlib>

#include "engine/error.h"

namespace nf::cpu {
namespace {

constexpr const char* kVariable = "NEUROFLUX_CPU_ISA";

#if defined(__AVX512F__)
constexpr InstructionSet kBuiltFor = InstructionSet::avx512;
#elif defined(__AVX2__)
constexpr InstructionSet kBuiltFor = InstructionSet::avx2;
#else
constexpr InstructionSet kBuiltFor = InstructionSet::baseline;
#endif

InstructionSet read_allowed() {
  const char* value = std::getenv(kVariable);
  if (value == nullptr || *value == 0) return InstructionSet::avx512;
  const std::string_view name(value);
  for (const auto set : {InstructionSet::baseline, InstructionSet::avx2, InstructionSet::avx512}) {
    if (name != to_string(set)) continue;
    NF_CHECK(set >= kBuiltFor,
             "{}={}: this program is built for {} (NF_NATIVE); a portable one can "
             "use less than the machine has",
             kVariable, name, to_string(kBuiltFor));
    return set;
  }
  fail("{}={}: unknown (known: baseline, avx2, avx512)", kVariable, name);
}

InstructionSet machine() {
#if defined(NF_WIDEST_AT_RUN_TIME)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return InstructionSet::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
#endif
  return kBuiltFor;
}

}  // namespace

std::string_view to_string(InstructionSet set) {
  switch (set) {
    case InstructionSet::baseline:
      return "baseline";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
  }
  return "?";
}

InstructionSet allowed_instruction_set() {
  static const InstructionSet allowed = read_allowed();
  return allowed;
}

InstructionSet instruction_set() {
  static const InstructionSet set = std::min(machine(), allowed_instruction_set());
  return set;
}

}  // namespace nf::cpu
