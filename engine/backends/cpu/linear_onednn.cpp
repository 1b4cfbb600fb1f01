// Matrix products by oneDNN. Transposed operands are a matter of strides; nothing is reordered.
#include <string_view>

#include "engine/backends/cpu/onednn_library.h"
#include "engine/backends/cpu/onednn_versions.h"
#include "engine/backends/cpu/typed.h"
#include "engine/backends/cpu/zeros.h"

namespace nf::cpu {
namespace {

using Layout = dnnl::memory::desc;

constexpr std::size_t kMostEntries = 4096;

Layout matrix(std::int64_t rows, std::int64_t columns) {
  return {{rows, columns}, dnnl::memory::data_type::f32, dnnl::memory::dims{columns, 1}};
}

// What is stored as (columns, rows), seen as (rows, columns).
Layout transposed(std::int64_t rows, std::int64_t columns) {
  return {{rows, columns}, dnnl::memory::data_type::f32, dnnl::memory::dims{1, rows}};
}

void make_entry(const LinearProblem& p, Pass pass, GradMode mode, const dnnl::engine& engine,
                DnnlLinear& entry) {
  if (pass == Pass::forward && p.o > kMostZeros) return;  // there may be no bias to read
  Layout left, right, out;
  const Layout bias = matrix(1, p.o);
  switch (pass) {
    case Pass::forward:
      left = matrix(p.n, p.i), right = transposed(p.i, p.o), out = matrix(p.n, p.o);
      break;
    case Pass::backward_input:
      left = matrix(p.n, p.o), right = matrix(p.o, p.i), out = matrix(p.n, p.i);
      break;
    case Pass::backward_weight:
      left = transposed(p.o, p.n), right = matrix(p.n, p.i), out = matrix(p.o, p.i);
      break;
  }
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (mode == GradMode::accumulate) {
    dnnl::post_ops sum;
    sum.append_sum();
    attr.set_post_ops(sum);
  }
  DnnlCall& call = entry.product;
  const bool forward = pass == Pass::forward;
  try {
    using Product = dnnl::matmul;
    call.description = forward ? describe_primitive<Product>(engine, attr, left, right, bias, out)
                               : describe_primitive<Product>(engine, attr, left, right, out);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented) return;
    throw;
  }
  if (std::string_view(call.description.impl_info_str()).find("ref") != std::string_view::npos)
    return;
  entry.supported = true;
  call.declare(DNNL_ARG_SRC, left, engine);
  call.declare(DNNL_ARG_WEIGHTS, right, engine);
  call.declare(DNNL_ARG_DST, out, engine);
  if (forward) call.declare(DNNL_ARG_BIAS, bias, engine);
  if (call.scratchpad_bytes() > 0)
    call.declare(DNNL_ARG_SCRATCHPAD, call.description.scratchpad_desc(), engine);
}

struct Cut {
  std::byte* scratchpad;
  std::int64_t bytes;

  Cut(const DnnlLinear& entry, Workspace workspace) {
    Sections sections(workspace);
    scratchpad = sections.take<std::byte>(entry.product.scratchpad_bytes());
    bytes = sections.bytes();
  }
};

}  // namespace

DnnlLinear& OneDnnLibrary::linear_entry(const LinearProblem& p, Pass pass, GradMode mode) {
  const std::array<std::int64_t, 5> key{p.n, p.i, p.o, static_cast<std::int64_t>(pass),
                                        static_cast<std::int64_t>(mode)};
  if (const auto found = linear_entries_.find(key); found != linear_entries_.end())
    return *found->second;
  auto entry = std::make_unique<DnnlLinear>();
  guarded(p, pass, [&] { make_entry(p, pass, mode, engine_, *entry); });
  if (linear_entries_.size() >= kMostEntries) linear_entries_.clear();
  return *linear_entries_.emplace(key, std::move(entry)).first->second;
}

bool OneDnnLibrary::has_linear(const LinearProblem& problem, Pass pass, GradMode mode) {
  return linear_entry(problem, pass, mode).supported;
}

std::int64_t OneDnnLibrary::linear_workspace(const LinearProblem& problem, Pass pass,
                                             GradMode mode) {
  return Cut(linear_entry(problem, pass, mode), {}).bytes;
}

void OneDnnLibrary::linear(const LinearProblem& problem, Pass pass, GradMode mode,
                           const LinearOperands& operands, Workspace workspace) {
  DnnlLinear& entry = linear_entry(problem, pass, mode);
  const Cut cut(entry, workspace);
  DnnlCall& call = entry.product;
  switch (pass) {
    case Pass::forward:
      call.bind(DNNL_ARG_SRC, operands.x);
      call.bind(DNNL_ARG_WEIGHTS, operands.w);
      call.bind(DNNL_ARG_BIAS, operands.bias == nullptr ? kZeros : operands.bias);
      break;
    case Pass::backward_input:
      call.bind(DNNL_ARG_SRC, operands.dy);
      call.bind(DNNL_ARG_WEIGHTS, operands.w);
      break;
    case Pass::backward_weight:
      call.bind(DNNL_ARG_SRC, operands.dy);
      call.bind(DNNL_ARG_WEIGHTS, operands.x);
      break;
  }
  call.bind(DNNL_ARG_DST, operands.out);
  guarded(problem, pass, [&] { call.run(stream_, cut.scratchpad); });
}

}  // namespace nf::cpu
