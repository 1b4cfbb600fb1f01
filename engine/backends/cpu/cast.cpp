// Conversions between element types, and fill.
#include <type_traits>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "engine/half.h"

namespace nf::cpu {
namespace {

// Storage types of equal width need types of their own to be told apart.
struct F16 {
  std::uint16_t bits;
};
struct Bf16 {
  std::uint16_t bits;
};

template <typename To, typename From>
To convert(From value) {
  if constexpr (std::is_same_v<From, F16>)
    return convert<To>(f16_to_float(value.bits));
  else if constexpr (std::is_same_v<From, Bf16>)
    return convert<To>(bf16_to_float(value.bits));
  else if constexpr (std::is_same_v<To, F16>)
    return F16{float_to_f16(static_cast<float>(value))};
  else if constexpr (std::is_same_v<To, Bf16>)
    return Bf16{float_to_bf16(static_cast<float>(value))};
  else
    return static_cast<To>(value);
}

template <typename Fn>
void with_element(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(float{});
    case DType::f64:
      return fn(double{});
    case DType::f16:
      return fn(F16{});
    case DType::bf16:
      return fn(Bf16{});
    case DType::u8:
      return fn(std::uint8_t{});
    case DType::i32:
      return fn(std::int32_t{});
    case DType::i64:
      return fn(std::int64_t{});
  }
}

}  // namespace

void CpuBackend::fill(View dst, double value) {
  with_element(dst.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    T* out = dst.as<T>();
    const T filler = convert<T>(value);
    parallel_for(threads_, dst.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
      std::fill(out + begin, out + end, filler);
    });
  });
}

void CpuBackend::cast(View dst, ConstView src) {
  NF_CHECK(dst.numel() == src.numel(), "cast: source {} does not fit destination {}",
           src.shape.str(), dst.shape.str());
  with_element(src.dtype, [&](auto from_scalar) {
    using From = decltype(from_scalar);
    with_element(dst.dtype, [&](auto to_scalar) {
      using To = decltype(to_scalar);
      const From* in = src.as<From>();
      To* out = dst.as<To>();
      const auto loop = [=](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) out[i] = convert<To>(in[i]);
      };
      // The 16-bit formats are what caches are written in; the rest is not worth a second version.
      constexpr bool hot = sizeof(From) == 2 || sizeof(To) == 2;
      if constexpr (hot)
        parallel_simd(threads_, dst.numel(), kGrain, loop);
      else
        parallel_for(threads_, dst.numel(), kGrain, loop);
    });
  });
}

}  // namespace nf::cpu
