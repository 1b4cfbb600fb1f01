// From views to the typed pointers that launchers take.
#pragma once

#include <string_view>

#include "engine/backend.h"
#include "engine/error.h"
#include "kernels/element.h"

namespace nf::NF_TARGET {

/// Calls fn(T{}) with the storage type of `dtype`. Throws Error naming the operator for others.
template <typename Fn>
void with_storage(std::string_view op, DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(float{});
    case DType::bf16:
      return fn(bf16{});
    case DType::f16:
      return fn(f16{});
    default:
      fail("{}: GPUs compute in f32, bf16 and f16 here, got {}", op, to_string(dtype));
  }
}

template <typename T>
constexpr DType storage_dtype() {
  if constexpr (std::is_same_v<T, bf16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, f16>)
    return DType::f16;
  else
    return dtype_of<T>::value;
}

/// The elements of a view, null for an empty one. Throws Error when they are of another type.
template <typename T>
const T* elements(std::string_view op, const ConstView& view) {
  NF_CHECK(!view || view.dtype == storage_dtype<T>(), "{}: expected {}, got {}", op,
           to_string(storage_dtype<T>()), to_string(view.dtype));
  return view.as<T>();
}

template <typename T>
T* elements(std::string_view op, const View& view) {
  return const_cast<T*>(elements<T>(op, ConstView(view)));
}

inline void check_workspace(std::string_view op, Workspace workspace, std::int64_t needed) {
  NF_CHECK(workspace.bytes >= needed, "{}: needs a workspace of {} bytes, got {}", op, needed,
           workspace.bytes);
}

inline bool accumulates(GradMode mode) { return mode == GradMode::accumulate; }

inline float bound_of(Activation activation) { return static_cast<float>(upper_bound(activation)); }

}  // namespace nf::NF_TARGET
