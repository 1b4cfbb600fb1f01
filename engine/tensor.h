// A shared handle on a contiguous array in a context's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/storage.h"

namespace nf {

/// Copying a Tensor copies the handle. A default-made one is empty. Layout is row-major over the
/// shape; images are (N, H, W, C). Views are reshapes or ranges of the first dimension.
class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised memory. Throws OutOfBudget.
  static Tensor empty(const ContextPtr& context, const Shape& shape, DType dtype = DType::f32,
                      Category category = Category::activation);
  static Tensor full(const ContextPtr& context, const Shape& shape, double value,
                     DType dtype = DType::f32, Category category = Category::activation);
  /// Copies numel elements of T from host memory. Throws Error when sizes differ.
  template <typename T>
  static Tensor from_host(const ContextPtr& context, const Shape& shape, std::span<const T> values,
                          Category category = Category::input) {
    return from_bytes(context, shape, dtype_of<T>::value, values.data(),
                      static_cast<std::int64_t>(values.size()), category);
  }

  explicit operator bool() const { return impl_ != nullptr; }
  const Shape& shape() const;
  std::int64_t dim(int i) const { return shape()[i]; }
  std::int64_t numel() const { return shape().numel(); }
  std::int64_t bytes() const { return numel() * size_of(dtype()); }
  DType dtype() const;
  const ContextPtr& context() const;
  Backend& backend() const { return context()->backend(); }
  Pool& pool() const { return context()->pool(); }

  ConstView view() const;
  /// For writing; counts as an in-place edit.
  View mutable_view();
  std::uint64_t version() const;

  /// Same memory, another shape of as many elements, without a history: no gradient flows through
  /// it. The operator `reshape` (engine/ops) is the one that does.
  Tensor reshaped(const Shape& shape) const;
  /// Samples begin..end-1 of the first dimension, same memory, without a history. Throws Error out
  /// of range and where a gradient is wanted, which no operator would bring: take
  /// detached().rows(…) to do without.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  /// A copy in memory of its own.
  Tensor clone(Category category) const;
  /// The same memory without a history: no gradient flows through it.
  Tensor detached() const;

  /// Copies to the host. Throws Error unless T is the tensor's type.
  template <typename T>
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<std::size_t>(numel()));
    copy_to(dtype_of<T>::value, values.data());
    return values;
  }
  /// The element of a tensor that has one alone, on the host. Throws Error where it has not, or T
  /// is not the tensor's type.
  template <typename T>
  T item() const {
    NF_CHECK(numel() == 1, "tensor: {} has not one element alone", shape().str());
    T value{};
    copy_to(dtype_of<T>::value, &value);
    return value;
  }
  void copy_from_host(const void* values);
  void copy_to_host(void* values) const;

  /// Identity of this value in a tape.
  std::uint64_t id() const;
  /// Whether a gradient with respect to this tensor is wanted.
  bool requires_grad() const;
  /// Marks a leaf (a parameter) whose gradient is kept in grad().
  Tensor& set_requires_grad(bool required);
  bool is_leaf() const;
  /// Gradient of a leaf, empty until a backward reached it and after clear_grad.
  const Tensor& grad() const;
  void set_grad(Tensor gradient) const;
  void clear_grad() const;

  /// Whether no other handle holds this memory: it may be overwritten.
  bool unique() const;

 private:
  friend class Tape;
  struct Impl;

  static std::shared_ptr<Impl> make_impl();
  static Tensor from_bytes(const ContextPtr& context, const Shape& shape, DType dtype,
                           const void* values, std::int64_t count, Category category);
  void copy_to(DType dtype, void* values) const;
  Tensor view_of(const Shape& shape, std::int64_t byte_offset) const;
  /// Called by the tape for an output that depends on something that requires a gradient.
  void mark_computed() const;

  std::shared_ptr<Impl> impl_;
};

}  // namespace nf
