#include "neuroflux/cache_values.h"

#include <cstdint>
#include <cstring>

#include "kernels/half.h"

namespace nf {

void encode_values(std::span<const float> values, DType dtype, std::byte* stored) {
  if (dtype == DType::f32) {
    std::memcpy(stored, values.data(), values.size_bytes());
    return;
  }
  const auto each = [&](auto convert) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t bits = convert(values[i]);
      std::memcpy(stored + 2 * i, &bits, sizeof bits);
    }
  };
  if (dtype == DType::bf16)
    each([](float value) { return float_to_bf16(value); });
  else
    each([](float value) { return float_to_f16(value); });
}

void decode_values(const std::byte* stored, DType dtype, std::span<float> values) {
  if (dtype == DType::f32) {
    std::memcpy(values.data(), stored, values.size_bytes());
    return;
  }
  const auto each = [&](auto convert) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, stored + 2 * i, sizeof bits);
      values[i] = convert(bits);
    }
  };
  if (dtype == DType::bf16)
    each([](std::uint16_t bits) { return bf16_to_float(bits); });
  else
    each([](std::uint16_t bits) { return f16_to_float(bits); });
}

}  // namespace nf
