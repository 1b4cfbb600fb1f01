#include "engine/shape.h"

#include <algorithm>
#include <limits>

#include "engine/error.h"

namespace nf {

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) {
  NF_CHECK(extents.size() <= kMaxRank, "shape: {} dimensions, at most {} are supported",
           extents.size(), kMaxRank);
  rank_ = static_cast<int>(extents.size());
  std::copy(extents.begin(), extents.end(), extents_.begin());
  for (const std::int64_t extent : extents)
    NF_CHECK(extent >= 0, "shape: extents must not be negative, got {}", str());
}

std::int64_t Shape::operator[](int i) const {
  const int index = i < 0 ? rank_ + i : i;
  NF_CHECK(index >= 0 && index < rank_, "shape: dimension {} of {} does not exist", i, str());
  return extents_[static_cast<std::size_t>(index)];
}

std::int64_t Shape::numel() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents())
    NF_CHECK(!__builtin_mul_overflow(product, extent, &product),
             "shape: {} has more elements than 64 bits count", str());
  return product;
}

Shape Shape::with_batch(std::int64_t n) const {
  NF_CHECK(rank_ >= 1, "shape: a scalar has no batch dimension");
  Shape result = *this;
  result.extents_[0] = n;
  return result;
}

Shape Shape::sample() const {
  NF_CHECK(rank_ >= 1, "shape: a scalar has no batch dimension");
  return Shape(extents().subspan(1));
}

std::string Shape::str() const {
  std::string text = "[";
  for (const std::int64_t extent : extents()) {
    if (text.size() > 1) text += ',';
    text += std::to_string(extent);
  }
  return text + "]";
}

}  // namespace nf
