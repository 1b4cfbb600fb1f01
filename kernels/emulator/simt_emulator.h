// kernels/simt.h for g++: CUDA's words as calls into the emulator. Only simt.h includes it.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>

#define NF_KERNEL(threads) void
#define NF_DEVICE inline
#define NF_SHARED(type, name, dimensions)                                               \
  using name##_type = type dimensions;                                                  \
  name##_type& name = *static_cast<name##_type*>(::nf::simt::emulator::shared_variable( \
      []() -> const void* {                                                             \
        static const char tag = 0;                                                      \
        return &tag;                                                                    \
      }(),                                                                              \
      sizeof(name##_type), alignof(name##_type)))
#define NF_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::nf::simt::emulator::dynamic_shared())

#define threadIdx (::nf::simt::emulator::thread_index())
#define blockIdx (::nf::simt::emulator::block_index())
#define blockDim (::nf::simt::emulator::block_size())
#define gridDim (::nf::simt::emulator::grid_size())

namespace nf::simt {

struct Index3 {
  unsigned x, y, z;
};

namespace emulator {

// Constant within one run of a kernel by one thread.
[[gnu::const]] Index3 thread_index() noexcept;
[[gnu::const]] Index3 block_index() noexcept;
[[gnu::const]] Index3 block_size() noexcept;
[[gnu::const]] Index3 grid_size() noexcept;

/// The block's variable that `tag` stands for.
void* shared_variable(const void* tag, std::size_t bytes, std::size_t alignment);
void* dynamic_shared();

void read_together(void* value, const void* address, std::size_t bytes);
void write_together(void* address, const void* value, std::size_t bytes);
/// Announces an atomic access, which the caller then carries out: threads switch nowhere between.
void atomic_access(const void* address, std::size_t bytes);

enum class Vote { none, any, all, count };
/// Waits for the whole block; the vote over all threads' predicates.
int sync_threads(Vote vote, bool predicate, int line);
/// Waits for the lanes in `mask`, and orders what they did to memory before what they do next. (The
/// three below order nothing, as on a GPU.)
void sync_warp(unsigned mask);
/// Waits for the lanes in `mask`; the predicates of those that are still running, as bits.
unsigned ballot(unsigned mask, bool predicate);
/// The same, whether all predicates hold.
bool all_lanes(unsigned mask, bool predicate);
/// Waits for the lanes in `mask`; what lane `source` brought.
std::uint64_t exchange(unsigned mask, std::uint64_t value, int source);
int lane();

/// One run of a kernel's body by the current thread, parameters bound.
struct Body {
  void (*call)(const void* closure);
  const void* closure;
  std::size_t bytes;
};
void run(const char* name, Extent grid, Extent block, std::int64_t shared_bytes, Body body);

template <typename T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulator

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), Extent grid, Extent block,
            std::int64_t shared_bytes, Stream, const Arguments&... arguments) {
  // By value: an argument may lie where kernels have no business.
  const auto call = [=] { kernel(static_cast<Parameters>(arguments)...); };
  using Call = decltype(call);
  static_assert(std::is_trivially_copyable_v<Call>, "a recorded launch is a copy of its bytes");
  emulator::run(
      name, grid, block, shared_bytes,
      {[](const void* closure) { (*static_cast<Call*>(closure))(); }, &call, sizeof(call)});
}

// Barriers, votes, shuffles. Barriers of a block are told apart by their lines, which no optimiser
// duplicates.
#define __syncthreads() \
  static_cast<void>(    \
      ::nf::simt::emulator::sync_threads(::nf::simt::emulator::Vote::none, false, __LINE__))
#define __syncthreads_or(p) \
  ::nf::simt::emulator::sync_threads(::nf::simt::emulator::Vote::any, (p) != 0, __LINE__)
#define __syncthreads_and(p) \
  ::nf::simt::emulator::sync_threads(::nf::simt::emulator::Vote::all, (p) != 0, __LINE__)
#define __syncthreads_count(p) \
  ::nf::simt::emulator::sync_threads(::nf::simt::emulator::Vote::count, (p) != 0, __LINE__)
inline void __syncwarp(unsigned mask = 0xffffffffU) { emulator::sync_warp(mask); }
inline unsigned __ballot_sync(unsigned mask, int p) { return emulator::ballot(mask, p != 0); }
inline int __any_sync(unsigned mask, int p) { return emulator::ballot(mask, p != 0) != 0; }
inline int __all_sync(unsigned mask, int p) { return emulator::all_lanes(mask, p != 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int first = emulator::lane() & ~(width - 1);
  return emulator::from_bits<T>(
      emulator::exchange(mask, emulator::to_bits(value), first + (source & (width - 1))));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int me = emulator::lane(), source = me ^ lanes;
  const bool inside = (source & ~(width - 1)) <= (me & ~(width - 1));
  return emulator::from_bits<T>(
      emulator::exchange(mask, emulator::to_bits(value), inside ? source : me));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  const int me = emulator::lane(), source = me + static_cast<int>(lanes);
  const bool inside = (source & ~(width - 1)) == (me & ~(width - 1));
  return emulator::from_bits<T>(
      emulator::exchange(mask, emulator::to_bits(value), inside ? source : me));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  const int me = emulator::lane(), source = me - static_cast<int>(lanes);
  const bool inside = source >= (me & ~(width - 1));
  return emulator::from_bits<T>(
      emulator::exchange(mask, emulator::to_bits(value), inside ? source : me));
}

// Atomics return what was there before. They announce their access themselves.
#define NF_UNWATCHED __attribute__((no_sanitize("thread"), noinline))
template <typename T>
NF_UNWATCHED T atomicAdd(T* address, T value) {
  emulator::atomic_access(address, sizeof(T));
  const T before = *address;
  *address = before + value;
  return before;
}
template <typename T>
NF_UNWATCHED T atomicMax(T* address, T value) {
  emulator::atomic_access(address, sizeof(T));
  const T before = *address;
  if (before < value) *address = value;
  return before;
}
template <typename T>
NF_UNWATCHED T atomicOr(T* address, T value) {
  emulator::atomic_access(address, sizeof(T));
  const T before = *address;
  *address = before | value;
  return before;
}
template <typename T>
NF_UNWATCHED T atomicExch(T* address, T value) {
  emulator::atomic_access(address, sizeof(T));
  const T before = *address;
  *address = value;
  return before;
}
template <typename T>
NF_UNWATCHED T atomicCAS(T* address, T expected, T value) {
  emulator::atomic_access(address, sizeof(T));
  const T before = *address;
  if (before == expected) *address = value;
  return before;
}
#undef NF_UNWATCHED

// Arithmetic, here as exact as the host's.
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0F / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline float __uint_as_float(std::uint32_t x) { return std::bit_cast<float>(x); }
inline std::uint32_t __float_as_uint(float x) { return std::bit_cast<std::uint32_t>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(unsigned x) { return std::countl_zero(x); }
inline int __ffs(unsigned x) { return x == 0 ? 0 : std::countr_zero(x) + 1; }

}  // namespace nf::simt
