// Philox4x32-10 counter-based random numbers: the same bits on every device.
//
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// A number is a pure function of (key, counter), so that nothing depends on the order of calls.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define NF_HOST_DEVICE __host__ __device__
#else
#define NF_HOST_DEVICE
#endif

namespace nf {

struct Philox4 {
  std::uint32_t v[4];
};

/// Ten rounds of Philox4x32 on a 128-bit counter (low and high half) under a 64-bit key.
NF_HOST_DEVICE inline Philox4 philox(std::uint64_t key, std::uint64_t counter_low,
                                     std::uint64_t counter_high) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key);
  std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
  Philox4 c{{static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
             static_cast<std::uint32_t>(counter_high),
             static_cast<std::uint32_t>(counter_high >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(0xD2511F53U) * c.v[0];
    const std::uint64_t p1 = static_cast<std::uint64_t>(0xCD9E8D57U) * c.v[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.v[1] ^ k0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.v[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

/// A 64-bit key: `value` itself or, where `seed` is given, the one that this seed in device memory
/// makes of it, so that work which is captured once draws anew when the seed changes.
struct PhiloxKey {
  std::uint64_t value = 0;
  const std::uint64_t* seed = nullptr;
  std::uint64_t stream = 0;

  // A number is a key.
  NF_HOST_DEVICE PhiloxKey(std::uint64_t value) : value(value) {}
  NF_HOST_DEVICE PhiloxKey(const std::uint64_t* seed, std::uint64_t value, std::uint64_t stream)
      : value(value), seed(seed), stream(stream) {}

  NF_HOST_DEVICE std::uint64_t get() const {
    return seed == nullptr ? value : first_bits(philox(*seed, value, stream));
  }
  NF_HOST_DEVICE static std::uint64_t first_bits(const Philox4& bits) {
    return (static_cast<std::uint64_t>(bits.v[1]) << 32) | bits.v[0];
  }
};

/// 24 random bits -> float in [0, 1).
NF_HOST_DEVICE inline float uniform01(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24F;
}

}  // namespace nf
