// What operators share: checks of their operands and scratch memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/tensor.h"

namespace nf::detail {

/// Beyond this a stride, padding or window is a mistake, and sizes computed from it might overflow.
inline constexpr std::int64_t kMaxStep = std::int64_t{1} << 30;

/// Throws Error unless `tensor` is there and holds a type that operators compute in.
inline void check_floating(std::string_view op, std::string_view name, const Tensor& tensor) {
  NF_CHECK(static_cast<bool>(tensor), "{}: the {} is an empty tensor", op, name);
  const bool known = tensor.backend().computes_in(tensor.dtype());
  NF_CHECK(known, "{}: the {} must be {}, got {} {}", op, name,
           tensor.backend().computes_in(DType::f64) ? "f32 or f64" : "f32, bf16 or f16",
           to_string(tensor.dtype()), tensor.shape().str());
}

/// The type of statistics and of what is kept per channel beside elements of `dtype`.
inline DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? dtype : DType::f32; }

/// Throws Error unless `tensor` is there and lives in the context of `input`.
inline void check_together(std::string_view op, std::string_view name, const Tensor& tensor,
                           const Tensor& input) {
  NF_CHECK(static_cast<bool>(tensor), "{}: the {} is an empty tensor", op, name);
  NF_CHECK(tensor.context() == input.context(),
           "{}: input and {} live in different contexts (input on {}, {} on {})", op, name,
           to_string(input.context()->device()), name, to_string(tensor.context()->device()));
}

/// Throws Error unless `tensor` is there, in the context of `input` and of its type.
inline void check_alike(std::string_view op, std::string_view name, const Tensor& tensor,
                        const Tensor& input) {
  check_together(op, name, tensor, input);
  NF_CHECK(tensor.dtype() == input.dtype(), "{}: input is {}, {} is {}", op,
           to_string(input.dtype()), name, to_string(tensor.dtype()));
}

/// check_alike for a vector of one value per channel.
inline void check_per_channel(std::string_view op, std::string_view name, const Tensor& tensor,
                              const Tensor& input, std::int64_t channels) {
  check_alike(op, name, tensor, input);
  NF_CHECK(tensor.shape() == Shape({channels}), "{}: {} must be [{}], got {}", op, name, channels,
           tensor.shape().str());
}

/// Throws Error unless `shape` is that of a batch of images without an empty dimension.
inline void check_images(std::string_view op, const Shape& shape) {
  NF_CHECK(shape.rank() == 4 && shape.numel() > 0,
           "{}: input must be (N, H, W, C) with no empty dimension, got {}", op, shape.str());
}

/// check_per_channel for parameters and statistics of batch norm, which 16-bit inputs have in f32.
inline void check_statistics(std::string_view op, std::string_view name, const Tensor& tensor,
                             const Tensor& input, std::int64_t channels) {
  check_together(op, name, tensor, input);
  const DType wanted = statistics_dtype(input.dtype());
  NF_CHECK(tensor.dtype() == wanted, "{}: input is {}, {} must be {}, is {}", op,
           to_string(input.dtype()), name, to_string(wanted), to_string(tensor.dtype()));
  NF_CHECK(tensor.shape() == Shape({channels}), "{}: {} must be [{}], got {}", op, name, channels,
           tensor.shape().str());
}

/// Scratch memory of one primitive; a primitive that needs none leaves no trace in the pool.
class Scratch {
 public:
  Scratch(const ContextPtr& context, std::int64_t bytes) {
    if (bytes > 0) storage_.emplace(context, bytes, Category::workspace);
  }
  operator Workspace() const {
    return storage_ ? Workspace{storage_->data(), storage_->bytes()} : Workspace{};
  }

 private:
  std::optional<Storage> storage_;
};

}  // namespace nf::detail
