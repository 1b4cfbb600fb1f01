// What operators are measured against: the arithmetic of a matrix product, the memory traffic of a
// copy, on the same device in the same run.
#pragma once

#include <cstdint>

#include "engine/storage.h"
#include "engine/tensor.h"

namespace nf::bench {

/// Values uniform in [-1, 1), the same in every run.
Tensor random_tensor(const ContextPtr& context, const Shape& shape);

/// Scratch memory of one primitive.
class Scratch {
 public:
  Scratch(const ContextPtr& context, std::int64_t bytes)
      : storage_(context, bytes, Category::workspace), bytes_(bytes) {}
  operator Workspace() const {
    return bytes_ > 0 ? Workspace{storage_.data(), bytes_} : Workspace{};
  }

 private:
  Storage storage_;
  std::int64_t bytes_;
};

/// y = x w^T + bias.
class ReferenceProduct {
 public:
  ReferenceProduct(const ContextPtr& context, const LinearProblem& problem);
  void run();
  double flops() const;

 private:
  LinearProblem problem_;
  Tensor x_, w_, bias_, y_;
  Scratch scratch_;
};

class ReferenceCopy {
 public:
  /// `bytes` are read and as many written.
  ReferenceCopy(const ContextPtr& context, std::int64_t bytes);
  void run();
  std::int64_t bytes_moved() const { return from_.bytes() + to_.bytes(); }

 private:
  Tensor from_, to_;
};

/// Side of a square product that arithmetic alone bounds: a GPU wants a larger one.
std::int64_t reference_side(DeviceKind device);
/// Of a copy far larger than any cache.
inline constexpr std::int64_t kReferenceCopyBytes = std::int64_t{256} << 20;

}  // namespace nf::bench
