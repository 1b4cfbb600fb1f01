// Small kernels for the emulator's tests; what each is for stands beside its test.
#pragma once

#include "kernels/simt.h"

namespace nf::NF_TARGET::test {

NF_KERNEL(256) where_am_i(std::int32_t* out);
NF_KERNEL(256) sum_by_shuffles(const float* x, float* y);
NF_KERNEL(64) vote(std::int32_t* out);
NF_KERNEL(96) count_up(std::int32_t* counter, float* sum);
NF_KERNEL(64) reverse(float* x, int n);
NF_KERNEL(64) shift_without_barrier(float* x);
NF_KERNEL(32) read_neighbour(float* x, bool wait);
/// What lanes do between writing and reading what another wrote.
enum class Between { barrier, half_barriers, chain, shuffle, vote };
NF_KERNEL(32) talk_in_a_warp(float* x, Between between, unsigned from);
NF_KERNEL(32) count_then_read(float* counter, float* y, bool wait);
NF_KERNEL(32) all_write(float* x, std::int64_t stride);
NF_KERNEL(32) read_then_write(const float* x, float* y);
NF_KERNEL(32) bytes_side_by_side(std::uint8_t* x);
NF_KERNEL(64) half_waits(float* x);
NF_KERNEL(64) waits_elsewhere(float* x);
NF_KERNEL(64) lanes_miss_each_other(float* x);
NF_KERNEL(32) shuffle_from_absent(float* x);
NF_KERNEL(32) not_in_the_mask(float* x);
NF_KERNEL(32) beyond_shared(float* x, int last);
NF_KERNEL(32) too_much_shared(float* x);
NF_KERNEL(32) write_at(float* x, std::int64_t i);
NF_KERNEL(32) vector_at(const float* x, float* y, std::int64_t i);
NF_KERNEL(256) copy_with_stride(const float* x, float* y, std::int64_t stride);
NF_KERNEL(32) vector_copy(const float* x, float* y);
NF_KERNEL(32) shared_with_stride(float* y, int stride);
NF_KERNEL(32) shared_vectors(float* y);
NF_KERNEL(64) half_the_lanes(const float* x, float* y);
NF_KERNEL(32) many_barriers(float* x);

template <typename T>
NF_KERNEL(64)
add_one(T* x, int shift);

}  // namespace nf::NF_TARGET::test
