#include <algorithm>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "kernels/half.h"

namespace nf::cpu {
namespace {

template <typename T>
void fill_with(int threads, View dst, T value) {
  T* out = dst.as<T>();
  parallel_for(threads, dst.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
    std::fill(out + begin, out + end, value);
  });
}

}  // namespace

void CpuBackend::fill(View dst, double value) {
  switch (dst.dtype) {
    case DType::f32:
      return fill_with(threads_, dst, static_cast<float>(value));
    case DType::f64:
      return fill_with(threads_, dst, value);
    case DType::f16:
      return fill_with(threads_, dst, float_to_f16(static_cast<float>(value)));
    case DType::bf16:
      return fill_with(threads_, dst, float_to_bf16(static_cast<float>(value)));
    case DType::u8:
      return fill_with(threads_, dst, static_cast<std::uint8_t>(value));
    case DType::i32:
      return fill_with(threads_, dst, static_cast<std::int32_t>(value));
    case DType::i64:
      return fill_with(threads_, dst, static_cast<std::int64_t>(value));
  }
}

}  // namespace nf::cpu
