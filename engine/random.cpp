#include "engine/random.h"

#include <cmath>
#include <numbers>
#include <numeric>

namespace nf {

namespace {

std::uint64_t stream_of(Purpose purpose) {
  return static_cast<std::uint64_t>(purpose) + 0x4e46000000000000ULL;
}

}  // namespace

std::uint64_t random_key(std::uint64_t seed, Purpose purpose, std::uint64_t epoch) {
  return stored_random_key(&seed, purpose, epoch).get();
}

PhiloxKey stored_random_key(const std::uint64_t* seed, Purpose purpose, std::uint64_t epoch) {
  return {seed, epoch, stream_of(purpose)};
}

std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

std::uint32_t RandomStream::next_bits() {
  if (used_ == 4) {
    block_ = philox(key_, counter_++, stream_);
    used_ = 0;
  }
  return block_.v[used_++];
}

std::uint64_t RandomStream::below(std::uint64_t bound) {
  // Rejects the last, incomplete multiple of `bound`, which would favour small numbers.
  const std::uint64_t limit = ~std::uint64_t{0} - (~std::uint64_t{0} % bound + 1) % bound;
  while (true) {
    const std::uint64_t high = next_bits();
    const std::uint64_t value = (high << 32) | next_bits();
    if (value <= limit) return value % bound;
  }
}

float RandomStream::normal() {
  // 1 - u lies in (0, 1], where the logarithm is finite.
  const double radius = std::sqrt(-2.0 * std::log(1.0 - static_cast<double>(uniform())));
  const double angle = 2.0 * std::numbers::pi * static_cast<double>(uniform());
  return static_cast<float>(radius * std::cos(angle));
}

std::vector<std::int64_t> permutation(std::int64_t n, RandomStream& random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

}  // namespace nf
