// From views to typed pointers, and a workspace cut into arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "engine/backend.h"
#include "engine/error.h"

namespace nf::cpu {

/// Calls fn(T{}) with the scalar of `dtype`. Throws Error naming the operator unless f32 or f64.
template <typename Fn>
void with_real(std::string_view op, DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(float{});
    case DType::f64:
      return fn(double{});
    default:
      fail("{}: the cpu backend computes in f32 and f64, got {}", op, to_string(dtype));
  }
}

/// Calls fn(std::true_type{}) or fn(std::false_type{}), so that a loop has no branch on it.
template <typename Fn>
void with_flag(bool flag, const Fn& fn) {
  if (flag)
    fn(std::true_type{});
  else
    fn(std::false_type{});
}

/// The elements of a view, null for an empty one. Throws Error when they are of another type.
template <typename T>
const T* elements(std::string_view op, const ConstView& view) {
  NF_CHECK(!view || view.dtype == dtype_of<T>::value, "{}: expected {}, got {}", op,
           to_string(dtype_of<T>::value), to_string(view.dtype));
  return view.as<T>();
}

template <typename T>
T* elements(std::string_view op, const View& view) {
  return const_cast<T*>(elements<T>(op, ConstView(view)));
}

/// Adds up sections of a workspace, each on its own cache line, and cuts it accordingly.
class Sections {
 public:
  Sections() = default;
  explicit Sections(Workspace workspace) : data_(workspace.data) {}

  template <typename T>
  T* take(std::int64_t count) {
    const std::int64_t offset = bytes_;
    bytes_ += (count * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
    return data_ == nullptr ? nullptr : reinterpret_cast<T*>(data_ + offset);
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

inline void check_workspace(std::string_view op, Workspace workspace, std::int64_t needed) {
  NF_CHECK(workspace.bytes >= needed, "{}: needs a workspace of {} bytes, got {}", op, needed,
           workspace.bytes);
}

}  // namespace nf::cpu
