#include "tests/kernels/sample_kernels.h"

#include "kernels/element.h"

namespace nf::NF_TARGET::test {

NF_KERNEL(256) where_am_i(std::int32_t* out) {
  const std::int64_t block =
      blockIdx.x + gridDim.x * (blockIdx.y + std::int64_t{gridDim.y} * blockIdx.z);
  const std::int64_t thread =
      threadIdx.x + blockDim.x * (threadIdx.y + std::int64_t{blockDim.y} * threadIdx.z);
  const std::int64_t threads = std::int64_t{blockDim.x} * blockDim.y * blockDim.z;
  out[block * threads + thread] = static_cast<std::int32_t>(block * threads + thread);
}

NF_KERNEL(256) sum_by_shuffles(const float* x, float* y) {
  NF_SHARED(float, partial, [8]);
  float sum = x[threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, lanes);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) sum += partial[warp];
    *y = sum;
  }
}

NF_KERNEL(64) vote(std::int32_t* out) {
  const auto i = static_cast<int>(threadIdx.x);
  const int lane = i % 32;
  const unsigned odd = __ballot_sync(0xffffffffU, lane % 2);
  const int any = __any_sync(0xffffffffU, i == 40);
  const int all = __all_sync(0xffffffffU, i < 32);
  const int down = __shfl_down_sync(0xffffffffU, i, 1), up = __shfl_up_sync(0xffffffffU, i, 2, 16);
  const int fifth = __shfl_sync(0xffffffffU, i, 5, 8);
  const int count = __syncthreads_count(i % 3 == 0);
  const int either = __syncthreads_or(i == 63), both = __syncthreads_and(i < 63);
  const std::int32_t row[] = {
      static_cast<std::int32_t>(odd), any, all, down, up, fifth, count, either, both};
  for (int k = 0; k < 9; ++k) out[i * 9 + k] = row[k];
}

NF_KERNEL(96) count_up(std::int32_t* counter, float* sum) {
  atomicAdd(counter, 1);
  atomicAdd(sum, 0.5F);
  atomicMax(counter + 1, static_cast<std::int32_t>(threadIdx.x));
}

NF_KERNEL(64) reverse(float* x, int n) {
  NF_DYNAMIC_SHARED(float, copy);
  const auto i = static_cast<int>(threadIdx.x);
  copy[i] = x[i];
  __syncthreads();
  x[i] = copy[n - 1 - i];
}

NF_KERNEL(64) shift_without_barrier(float* x) {
  NF_SHARED(float, copy, [64]);
  copy[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = copy[(threadIdx.x + 32) % 64];
}

NF_KERNEL(32) read_neighbour(float* x, bool wait) {
  NF_SHARED(float, copy, [32]);
  copy[threadIdx.x] = x[threadIdx.x];
  if (wait) __syncwarp();
  x[threadIdx.x] = copy[(threadIdx.x + 1) % 32];
}

NF_KERNEL(32) talk_in_a_warp(float* x, Between between, unsigned from) {
  const unsigned lane = threadIdx.x, all = 0xffffffffU;
  x[lane] = 1;
  float zero = 0;
  if (between == Between::barrier) __syncwarp();
  if (between == Between::half_barriers) __syncwarp(lane < 16 ? 0xffffU : 0xffff0000U);
  if (between == Between::chain) {
    // Lane after lane: each knows of all below it.
    for (unsigned next = 1; next < 32; ++next)
      if (lane + 1 == next || lane == next) __syncwarp(3U << (next - 1));
  }
  if (between == Between::shuffle) zero = __shfl_sync(all, 0.0F, 0);
  if (between == Between::vote) zero = __ballot_sync(all, 0) == 0 ? 0.0F : 1.0F;
  // One lane is told apart, so that what others read of their own harms nothing.
  if (lane == 20) x[32] = x[from] + zero;
}

NF_KERNEL(32) count_then_read(float* counter, float* y, bool wait) {
  atomicAdd(counter, 1.0F);
  float zero = 0;
  if (wait)
    __syncwarp();
  else
    zero = __shfl_sync(0xffffffffU, 0.0F, 0);
  if (threadIdx.x == 31) *y = *counter + zero;
}

NF_KERNEL(32) all_write(float* x, std::int64_t stride) { x[blockIdx.x * stride] = 1; }

NF_KERNEL(32) read_then_write(const float* x, float* y) {
  const float value = x[0];
  y[blockIdx.x] = value;
}

NF_KERNEL(32) bytes_side_by_side(std::uint8_t* x) { x[threadIdx.x] = 1; }

NF_KERNEL(64) half_waits(float* x) {
  if (threadIdx.x < 32) __syncthreads();
  x[threadIdx.x] = 1;
}

NF_KERNEL(64) waits_elsewhere(float* x) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  x[threadIdx.x] = 1;
}

NF_KERNEL(64) lanes_miss_each_other(float* x) {
  if (threadIdx.x == 3)
    __syncthreads();
  else
    __syncwarp();
  x[threadIdx.x] = 1;
}

NF_KERNEL(32) shuffle_from_absent(float* x) {
  float value = 1;
  if (threadIdx.x < 16) value = __shfl_sync(0xffffU, value, 20);
  x[threadIdx.x] = value;
}

NF_KERNEL(32) not_in_the_mask(float* x) {
  __syncwarp(0xffffU);
  x[threadIdx.x] = 1;
}

NF_KERNEL(32) beyond_shared(float* x, int last) {
  NF_SHARED(float, some, [8]);
  NF_SHARED(float, others, [8]);
  others[threadIdx.x % 8] = 0;
  // By a pointer, whose bounds no compiler knows.
  float* const begin = some;
  if (threadIdx.x == 0) begin[last] = 1;
  __syncthreads();
  x[threadIdx.x] = some[0];
}

NF_KERNEL(32) too_much_shared(float* x) {
  NF_SHARED(float, many, [13 * 1024]);
  many[threadIdx.x] = 1;
  x[threadIdx.x] = many[threadIdx.x];
}

NF_KERNEL(32) write_at(float* x, std::int64_t i) { x[i] = 1; }

NF_KERNEL(32) vector_at(const float* x, float* y, std::int64_t i) {
  y[0] = load_vec<4>(x + i).v[0];
}

NF_KERNEL(256) copy_with_stride(const float* x, float* y, std::int64_t stride) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  y[i] = x[i * stride];
}

NF_KERNEL(32) vector_copy(const float* x, float* y) {
  store_vec(y + 4 * threadIdx.x, load_vec<4>(x + 4 * threadIdx.x));
}

NF_KERNEL(32) shared_with_stride(float* y, int stride) {
  NF_SHARED(float, tile, [1024]);
  tile[static_cast<int>(threadIdx.x) * stride] = 1;
  y[threadIdx.x] = 0;
}

NF_KERNEL(32) shared_vectors(float* y) {
  using Four = Vec<float, 4>;
  NF_SHARED(Four, tile, [32]);
  store_vec(tile[threadIdx.x].v, Vec<float, 4>{{1, 2, 3, 4}});
  y[threadIdx.x] = 0;
}

NF_KERNEL(64) half_the_lanes(const float* x, float* y) {
  // Lanes that go another way make requests of their own.
  if (threadIdx.x % 2 == 0) y[threadIdx.x] = x[threadIdx.x];
  for (unsigned i = 0; i < threadIdx.x % 3; ++i) y[threadIdx.x] += 1;
}

NF_KERNEL(32) many_barriers(float* x) {
  for (int i = 0; i < 10; ++i) {
    if (threadIdx.x == 0) x[0] += 1;
    __syncthreads();
    if (threadIdx.x == 31) x[0] += 1;
    __syncthreads();
  }
}

template <typename T>
NF_KERNEL(64)
add_one(T* x, int shift) {
  // Reads what is its own where the shift is 0, else its neighbour's.
  x[threadIdx.x] = static_cast<T>(x[(threadIdx.x + shift) % blockDim.x] + 1);
}
template NF_KERNEL(64) add_one(std::uint8_t*, int);
template NF_KERNEL(64) add_one(std::uint16_t*, int);
template NF_KERNEL(64) add_one(double*, int);

}  // namespace nf::NF_TARGET::test
