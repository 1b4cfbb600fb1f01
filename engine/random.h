// Random numbers keyed by (seed, purpose, epoch, index): no hidden state, no order of calls.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/philox.h"

namespace nf {

/// What a stream of random numbers is for; streams of different purposes are independent.
enum class Purpose : std::uint32_t {
  init = 1,
  shuffle,
  augment,
  dropout,
  split,
  generate,
  test,
};

/// A 64-bit key for one stream.
std::uint64_t random_key(std::uint64_t seed, Purpose purpose, std::uint64_t epoch = 0);

/// The same of a seed in device memory, as it will be when the key is used.
PhiloxKey stored_random_key(const std::uint64_t* seed, Purpose purpose, std::uint64_t epoch = 0);

/// FNV-1a of a name, to give each parameter a stream of its own.
std::uint64_t hash_name(std::string_view name);

/// Numbers of one stream in sequence; (key, stream) addresses it, draws advance the counter.
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t key, std::uint64_t stream = 0) : key_(key), stream_(stream) {}

  std::uint32_t next_bits();
  /// In [0, 1).
  float uniform() { return uniform01(next_bits()); }
  /// In [0, bound); bound >= 1. Unbiased.
  std::uint64_t below(std::uint64_t bound);
  /// Standard normal, by Box-Muller.
  float normal();

 private:
  std::uint64_t key_;
  std::uint64_t stream_;
  std::uint64_t counter_ = 0;
  Philox4 block_{};
  int used_ = 4;
};

/// A permutation of 0..n-1 (Fisher-Yates).
std::vector<std::int64_t> permutation(std::int64_t n, RandomStream& random);

}  // namespace nf
