#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "kernels/half.h"

namespace nf::cpu {
namespace {

// How a type is read as and written from a real number.
struct F32 {
  using type = float;
  static float load(float value) { return value; }
  static float store(double value) { return static_cast<float>(value); }
};
struct F64 {
  using type = double;
  static double load(double value) { return value; }
  static double store(double value) { return value; }
};
struct F16 {
  using type = std::uint16_t;
  static float load(std::uint16_t value) { return f16_to_float(value); }
  static std::uint16_t store(double value) { return float_to_f16(static_cast<float>(value)); }
};
struct Bf16 {
  using type = std::uint16_t;
  static float load(std::uint16_t value) { return bf16_to_float(value); }
  static std::uint16_t store(double value) { return float_to_bf16(static_cast<float>(value)); }
};

template <typename Fn>
void with_format(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(F32{});
    case DType::f64:
      return fn(F64{});
    case DType::f16:
      return fn(F16{});
    case DType::bf16:
      return fn(Bf16{});
    default:
      fail("cast: from and to f32, f64, f16 and bf16 only, got {}", to_string(dtype));
  }
}

}  // namespace

void CpuBackend::cast(ConstView x, View y) {
  with_format(x.dtype, [&](auto from) {
    with_format(y.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const auto* in = x.as<typename From::type>();
      auto* out = y.as<typename To::type>();
      parallel_simd(threads_, x.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) out[i] = To::store(From::load(in[i]));
      });
    });
  });
}

}  // namespace nf::cpu
