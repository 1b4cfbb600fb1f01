#include "engine/tensor.h"

#include <atomic>

#include "engine/memory/recycled.h"

namespace nf {

struct Tensor::Impl {
  std::shared_ptr<Storage> storage;
  std::int64_t byte_offset = 0;
  Shape shape;
  DType dtype = DType::f32;
  std::uint64_t id = 0;
  bool requires_grad = false;
  bool leaf = true;
  Tensor grad;
};

namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> counter{1};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

std::shared_ptr<Tensor::Impl> Tensor::make_impl() {
  return std::allocate_shared<Impl>(RecyclingAllocator<Impl>());
}

Tensor Tensor::empty(const ContextPtr& context, const Shape& shape, DType dtype,
                     Category category) {
  std::int64_t bytes = 0;
  NF_CHECK(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes),
           "tensor: {} of {} is more than 64 bits count", shape.str(), to_string(dtype));
  Tensor tensor;
  tensor.impl_ = make_impl();
  tensor.impl_->storage =
      std::allocate_shared<Storage>(RecyclingAllocator<Storage>(), context, bytes, category);
  tensor.impl_->shape = shape;
  tensor.impl_->dtype = dtype;
  tensor.impl_->id = next_id();
  return tensor;
}

Tensor Tensor::full(const ContextPtr& context, const Shape& shape, double value, DType dtype,
                    Category category) {
  Tensor tensor = empty(context, shape, dtype, category);
  context->backend().fill(tensor.mutable_view(), value);
  return tensor;
}

Tensor Tensor::from_bytes(const ContextPtr& context, const Shape& shape, DType dtype,
                          const void* values, std::int64_t count, Category category) {
  NF_CHECK(count == shape.numel(), "tensor: {} values given for shape {}", count, shape.str());
  Tensor tensor = empty(context, shape, dtype, category);
  tensor.copy_from_host(values);
  return tensor;
}

const Shape& Tensor::shape() const {
  NF_CHECK(impl_ != nullptr, "tensor: an empty tensor has no shape");
  return impl_->shape;
}

DType Tensor::dtype() const {
  NF_CHECK(impl_ != nullptr, "tensor: an empty tensor has no type");
  return impl_->dtype;
}

const ContextPtr& Tensor::context() const {
  NF_CHECK(impl_ != nullptr, "tensor: an empty tensor has no context");
  return impl_->storage->context();
}

ConstView Tensor::view() const {
  if (impl_ == nullptr) return {};
  return {impl_->storage->data() + impl_->byte_offset, impl_->dtype, impl_->shape};
}

View Tensor::mutable_view() {
  if (impl_ == nullptr) return {};
  impl_->storage->bump_version();
  return {impl_->storage->data() + impl_->byte_offset, impl_->dtype, impl_->shape};
}

std::uint64_t Tensor::version() const { return impl_ ? impl_->storage->version() : 0; }

Tensor Tensor::view_of(const Shape& shape, std::int64_t byte_offset) const {
  Tensor tensor;
  tensor.impl_ = make_impl();
  tensor.impl_->storage = impl_->storage;
  tensor.impl_->byte_offset = impl_->byte_offset + byte_offset;
  tensor.impl_->shape = shape;
  tensor.impl_->dtype = impl_->dtype;
  tensor.impl_->id = next_id();
  return tensor;
}

Tensor Tensor::reshaped(const Shape& shape) const {
  NF_CHECK(shape.numel() == numel(), "reshape: {} has {} elements, {} has {}", this->shape().str(),
           numel(), shape.str(), shape.numel());
  return view_of(shape, 0);
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  NF_CHECK(shape().rank() >= 1 && begin >= 0 && begin <= end && end <= dim(0),
           "rows: range {} to {} of {}", begin, end, shape().str());
  NF_CHECK(!requires_grad(),
           "rows: no gradient flows through a range of rows, but {} wants one; detach it first",
           shape().str());
  const std::int64_t row_bytes = shape().sample().numel() * size_of(dtype());
  return view_of(shape().with_batch(end - begin), begin * row_bytes);
}

Tensor Tensor::clone(Category category) const {
  Tensor copy = empty(context(), shape(), dtype(), category);
  backend().copy(copy.mutable_view(), view());
  return copy;
}

Tensor Tensor::detached() const { return impl_ ? view_of(impl_->shape, 0) : Tensor(); }

void Tensor::copy_from_host(const void* values) {
  backend().copy_from_host(mutable_view(), values);
}

void Tensor::copy_to_host(void* values) const { backend().copy_to_host(values, view()); }

void Tensor::copy_to(DType dtype, void* values) const {
  NF_CHECK(dtype == this->dtype(), "tensor: holds {}, asked for as {}", to_string(this->dtype()),
           to_string(dtype));
  copy_to_host(values);
}

std::uint64_t Tensor::id() const { return impl_ ? impl_->id : 0; }
bool Tensor::requires_grad() const { return impl_ && impl_->requires_grad; }

Tensor& Tensor::set_requires_grad(bool required) {
  NF_CHECK(is_leaf(), "tensor: only a leaf can be told whether it requires a gradient");
  impl_->requires_grad = required;
  return *this;
}

bool Tensor::is_leaf() const { return impl_ && impl_->leaf; }

const Tensor& Tensor::grad() const {
  NF_CHECK(impl_ != nullptr, "tensor: an empty tensor has no gradient");
  return impl_->grad;
}

void Tensor::set_grad(Tensor gradient) const { impl_->grad = std::move(gradient); }

void Tensor::clear_grad() const {
  if (impl_) impl_->grad = Tensor();
}

bool Tensor::unique() const {
  return impl_ && impl_.use_count() == 1 && impl_->storage.use_count() == 1;
}

void Tensor::mark_computed() const {
  impl_->requires_grad = true;
  impl_->leaf = false;
}

}  // namespace nf
