// What versions 2 and 3 of oneDNN write differently. Private, as onednn_library.h.
#pragma once

#include <dnnl.hpp>

namespace nf::cpu {

/// A primitive without hint: what version 2 gathers in an operation's description first.
template <typename Primitive, typename... Arguments>
typename Primitive::primitive_desc describe_primitive(const dnnl::engine& engine,
                                                      const dnnl::primitive_attr& attr,
                                                      const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, arguments..., attr};
#else
  return {typename Primitive::desc(arguments...), attr, engine};
#endif
}

/// A backward primitive; `hint` describes its forward pass.
template <typename Primitive, typename Hint, typename... Arguments>
typename Primitive::primitive_desc describe_gradient(const dnnl::engine& engine,
                                                     const dnnl::primitive_attr& attr,
                                                     const Hint& hint,
                                                     const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, arguments..., hint, attr};
#else
  return {typename Primitive::desc(arguments...), attr, engine, hint};
#endif
}

inline void append_eltwise(dnnl::post_ops& post_ops, dnnl::algorithm algorithm, float alpha,
                           float beta) {
#if DNNL_VERSION_MAJOR >= 3
  post_ops.append_eltwise(algorithm, alpha, beta);
#else
  post_ops.append_eltwise(1.0F, algorithm, alpha, beta);
#endif
}

inline dnnl::memory::dims dims_of(const dnnl::memory::desc& layout) {
#if DNNL_VERSION_MAJOR >= 3
  return layout.get_dims();
#else
  return layout.dims();
#endif
}

}  // namespace nf::cpu
