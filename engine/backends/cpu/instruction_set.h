// Which of the machine's vectors the kernels use.
#pragma once

#include <string_view>

// Code for several sets is there to choose from at run time; elsewhere it is what the compiler was
// told to build. Not in builds without optimization, which do not pull a loop into the function
// whose set it is to have.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__AVX512F__) && \
    defined(__OPTIMIZE__)
#define NF_WIDEST_AT_RUN_TIME
#endif

namespace nf::cpu {

/// x86-64 as all have it or what else the compiler was told to build for; AVX2 with FMA; AVX-512
/// (F, VL and DQ).
enum class InstructionSet { baseline, avx2, avx512 };

std::string_view to_string(InstructionSet set);

/// The most that kernels may use: what the environment variable NEUROFLUX_CPU_ISA names, read once;
/// avx512 where it is not set or empty. Throws Error for another name, and for less than what the
/// compiler was told to build for, which nothing can lower.
InstructionSet allowed_instruction_set();

/// What they use: of what is allowed the most that the machine has.
InstructionSet instruction_set();

}  // namespace nf::cpu
