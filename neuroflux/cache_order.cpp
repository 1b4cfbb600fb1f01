#include "neuroflux/cache_order.h"

#include <algorithm>
#include <numeric>

#include "engine/random.h"

namespace nf {
namespace {

std::vector<std::int64_t> in_order(std::int64_t n) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  return order;
}

}  // namespace

CacheOrder::CacheOrder(const CacheLayout& layout, const CacheOrderOptions& options,
                       std::int64_t epoch)
    : layout_(layout),
      options_(options),
      key_(random_key(options.seed, Purpose::shuffle, static_cast<std::uint64_t>(epoch))) {
  RandomStream random(key_, 0);
  chunks_ = options.shuffle ? permutation(layout.chunks, random) : in_order(layout.chunks);
}

CacheOrder::Item CacheOrder::next() {
  if (cursor_ == samples_.size()) open_window();
  const std::int64_t sample = samples_[cursor_++];
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), sample);
  return {first_position_ + (after - starts_.begin()) - 1, sample - *(after - 1)};
}

void CacheOrder::open_window() {
  first_position_ = windows_++ * options_.window_chunks;
  const std::int64_t last = std::min(first_position_ + options_.window_chunks, layout_.chunks);
  starts_.assign(1, 0);
  for (std::int64_t position = first_position_; position < last; ++position)
    starts_.push_back(starts_.back() +
                      layout_.samples(chunks_[static_cast<std::size_t>(position)]));
  cursor_ = 0;
  RandomStream random(key_, static_cast<std::uint64_t>(windows_));
  samples_ = options_.shuffle ? permutation(starts_.back(), random) : in_order(starts_.back());
}

std::int64_t CacheOrder::host_bytes(const CacheLayout& layout, std::int64_t window_chunks) {
  constexpr std::int64_t kEach = sizeof(std::int64_t);
  const std::int64_t window = std::min(window_chunks, layout.chunks);
  // The next window is drawn while the last one is still held.
  return kEach * (layout.chunks + 2 * std::min(window * layout.samples_per_chunk, layout.count));
}

}  // namespace nf
