#include "kernels/random.cuh"

#include <cmath>

namespace nf::NF_TARGET {
namespace {

using namespace random_numbers;

/// n elements, by vectors of V where `aligned`.
template <int V, typename Fn>
void run(const char* name, Stream stream, const Fn& fn, std::int64_t n, bool aligned, PhiloxKey key,
         std::uint64_t number) {
  if (n == 0) return;
  const Parts parts{aligned ? n / V : 0, n};
  const std::int64_t threads = parts.vectors + (n - parts.vectors * V);
  launch(name, random_kernel<V, Fn>, {(threads + kRandomThreads - 1) / kRandomThreads},
         {kRandomThreads}, 0, stream, fn, parts, key, number);
}

}  // namespace

template <typename T>
void dropout(Stream stream, double p, PhiloxKey key, const T* x, T* y, std::int64_t n,
             bool accumulate) {
  const Dropout<T> fn{x, y, static_cast<std::uint32_t>(std::ceil(p * 0x1p24)),
                      static_cast<float>(1.0 / (1.0 - p)), accumulate};
  run<kVec<T>>("dropout", stream, fn, n, aligned16(x, y), key, 0);
}

template <typename T>
void fill_uniform(Stream stream, std::uint64_t key, std::uint64_t stream_number, T* y,
                  std::int64_t n, float low, float high) {
  run<kVec<T>>("fill_uniform", stream, Fill<T, Uniform>{y, low, high - low}, n, aligned16(y), key,
               stream_number);
}

template <typename T>
void fill_normal(Stream stream, std::uint64_t key, std::uint64_t stream_number, T* y,
                 std::int64_t n, float mean, float std) {
  run<kVec<T>>("fill_normal", stream, Fill<T, Gaussian>{y, mean, std}, n, aligned16(y), key,
               stream_number);
}

#define NF_INSTANTIATE(T)                                                                   \
  template void dropout(Stream, double, PhiloxKey, const T*, T*, std::int64_t, bool);       \
  template void fill_uniform(Stream, std::uint64_t, std::uint64_t, T*, std::int64_t, float, \
                             float);                                                        \
  template void fill_normal(Stream, std::uint64_t, std::uint64_t, T*, std::int64_t, float, float);
NF_INSTANTIATE(float)
NF_INSTANTIATE(bf16)
NF_INSTANTIATE(f16)
#undef NF_INSTANTIATE

}  // namespace nf::NF_TARGET
