// The extents of a tensor, outermost first, up to six of them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace nf {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  /// Throws Error for a negative extent or more than kMaxRank of them.
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  /// Extent of dimension `i`; negative counts from the end. Throws Error out of range.
  std::int64_t operator[](int i) const;
  /// Product of the extents (1 for rank 0). Throws Error where it exceeds 64 bits.
  std::int64_t numel() const;
  std::span<const std::int64_t> extents() const {
    return {extents_.data(), static_cast<std::size_t>(rank_)};
  }
  /// The same shape with dimension 0 replaced: a batch of another size.
  Shape with_batch(std::int64_t n) const;
  /// Without dimension 0: the shape of one sample.
  Shape sample() const;
  /// "[8,32,32,3]"
  std::string str() const;

  bool operator==(const Shape& other) const = default;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

}  // namespace nf
