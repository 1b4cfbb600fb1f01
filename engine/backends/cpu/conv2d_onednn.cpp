// Convolution by oneDNN: activations stay in NHWC, weights go through the layout it likes best.
#include <algorithm>
#include <string_view>

#include "engine/backends/cpu/onednn_library.h"
#include "engine/backends/cpu/onednn_versions.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"
#include "engine/backends/cpu/zeros.h"

namespace nf::cpu {
namespace {

using Dims = dnnl::memory::dims;
using Layout = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;

constexpr std::size_t kMostEntries = 4096;
// Some code pads each group to whole vectors, both ways: 256 times a depthwise filter's memory.
constexpr std::size_t kMostPadding = 4;
// The residual, which is the first thing done behind the convolution.
constexpr int kResidualArgument = DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1;

Layout layout(const Dims& dims, Tag tag) { return {dims, dnnl::memory::data_type::f32, tag}; }

// Operands of a problem as the library sees them.
struct Layouts {
  Layout x, y, bias, our_weights, any_weights;
  Dims stride, padding;

  explicit Layouts(const Conv2dProblem& p)
      : x(layout({p.n, p.c, p.h, p.w}, Tag::nhwc)),
        y(layout({p.n, p.o, p.out_h(), p.out_w()}, Tag::nhwc)),
        bias(layout({p.o}, Tag::x)),
        our_weights(plain_conv2d_weights(p, false)),
        any_weights(plain_conv2d_weights(p, true)),
        stride{p.stride, p.stride},
        padding{p.padding, p.padding} {}
};

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

dnnl::primitive_attr attributes(const Conv2dProblem& p, const Layouts& l) {
  dnnl::primitive_attr attr = attributes();
  dnnl::post_ops behind;
  if (p.residual) behind.append_binary(dnnl::algorithm::binary_add, l.y);
  if (p.activation == Activation::relu)
    append_eltwise(behind, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
  if (p.activation == Activation::relu6)
    append_eltwise(behind, dnnl::algorithm::eltwise_clip, 0.0F,
                   static_cast<float>(upper_bound(p.activation)));
  if (behind.len() > 0) attr.set_post_ops(behind);
  return attr;
}

dnnl::convolution_forward::primitive_desc describe_forward(const Layouts& l, bool with_bias,
                                                           const dnnl::primitive_attr& attr,
                                                           const dnnl::engine& engine) {
  using Forward = dnnl::convolution_forward;
  const auto kind = dnnl::prop_kind::forward_training;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  if (with_bias)
    return describe_primitive<Forward>(engine, attr, kind, algorithm, l.x, l.any_weights, l.bias,
                                       l.y, l.stride, l.padding, l.padding);
  return describe_primitive<Forward>(engine, attr, kind, algorithm, l.x, l.any_weights, l.y,
                                     l.stride, l.padding, l.padding);
}

dnnl::primitive_desc_base describe_pass(const Conv2dProblem& p, const Layouts& l, Pass pass,
                                        const dnnl::engine& engine) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  // The library may choose other code with a bias and without: one is always given, zeros at need.
  if (pass == Pass::forward) return describe_forward(l, true, attributes(p, l), engine);
  const auto hint = describe_forward(l, false, attributes(), engine);
  if (pass == Pass::backward_input)
    return describe_gradient<dnnl::convolution_backward_data>(engine, attributes(), hint, algorithm,
                                                              l.x, l.any_weights, l.y, l.stride,
                                                              l.padding, l.padding);
  return describe_gradient<dnnl::convolution_backward_weights>(engine, attributes(), hint,
                                                               algorithm, l.x, l.any_weights, l.y,
                                                               l.stride, l.padding, l.padding);
}

void declare_reorder(DnnlCall& call, const Layout& from, const Layout& to, bool add,
                     const dnnl::engine& engine) {
  dnnl::primitive_attr attr = attributes();
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum();
    attr.set_post_ops(sum);
  }
  call.description = dnnl::reorder::primitive_desc(engine, from, engine, to, attr);
  call.declare(DNNL_ARG_FROM, from, engine);
  call.declare(DNNL_ARG_TO, to, engine);
}

void declare_scratchpad(DnnlCall& call, const dnnl::engine& engine) {
  if (call.description.get(true) != nullptr && call.scratchpad_bytes() > 0)
    call.declare(DNNL_ARG_SCRATCHPAD, call.description.scratchpad_desc(), engine);
}

int output_argument(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return DNNL_ARG_DST;
    case Pass::backward_input:
      return DNNL_ARG_DIFF_SRC;
    default:
      return DNNL_ARG_DIFF_WEIGHTS;
  }
}

// With a residual to add the library takes other code, whose weights it reorders more slowly: that
// is worth while only where the pass over the output that it saves is longer than the weights.
bool worth_fusing(const Conv2dProblem& p) {
  const std::int64_t outputs = p.n * p.out_h() * p.out_w() * p.o;
  return !p.residual || outputs >= p.o * p.kh * p.kw * p.c / p.groups;
}

// oneDNN, of all versions so far, gathers the pixels that a strided 1x1 filter sees and writes
// behind its scratchpad, into other tensors, in the pass to the filters, where C fills no vector
// (uxlfoundation/oneDNN issue 6035).
bool writes_beyond_scratchpad(const Conv2dProblem& p, Pass pass) {
  constexpr std::int64_t kVector = 16;
  return pass == Pass::backward_weight && p.kh == 1 && p.kw == 1 && p.stride > 1 &&
         p.c / p.groups % kVector != 0;
}

void make_entry(const Conv2dProblem& problem, Pass pass, const dnnl::engine& engine,
                DnnlConv2d& entry) {
  if (!worth_fusing(problem) || writes_beyond_scratchpad(problem, pass)) return;
  if (pass == Pass::forward && problem.o > kMostZeros) return;  // there may be no bias to read
  const Layouts l(problem);
  try {
    entry.pass.description = describe_pass(problem, l, pass, engine);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented) return;
    throw;
  }
  const dnnl::primitive_desc_base& description = entry.pass.description;
  const std::string_view implementation(description.impl_info_str());
  const auto is = [&](std::string_view kind) { return implementation.find(kind) != kind.npos; };
  // A product of matrices for each channel, as without AVX-512 for the filters of 2x2 maps, takes
  // up to eighty times as long as our loops.
  if (is("ref") || (problem.depthwise() && is("gemm"))) return;
  // Behind convolutions that are products of matrices oneDNN 2.6 adds a wrong residual where there
  // is no AVX; elsewhere such are rare enough to go without.
  if (problem.residual && is("gemm")) return;
  const bool gradient = pass == Pass::backward_weight;
  const Layout weights =
      description.query_md(gradient ? dnnl::query::diff_weights_md : dnnl::query::weights_md, 0);
  if (problem.depthwise() && weights.get_size() > kMostPadding * l.our_weights.get_size()) return;
  entry.supported = true;
  entry.reorders = weights != l.our_weights;
  entry.weight_bytes = static_cast<std::int64_t>(weights.get_size());
  if (pass != Pass::backward_input) entry.pass.declare(DNNL_ARG_SRC, l.x, engine);
  if (!gradient) entry.pass.declare(DNNL_ARG_WEIGHTS, weights, engine);
  if (pass == Pass::forward && problem.residual) entry.pass.declare(kResidualArgument, l.y, engine);
  if (pass == Pass::forward)
    entry.pass.declare(DNNL_ARG_BIAS, l.bias, engine);
  else
    entry.pass.declare(DNNL_ARG_DIFF_DST, l.y, engine);
  entry.pass.declare(output_argument(pass),
                     gradient                ? weights
                     : pass == Pass::forward ? l.y
                                             : l.x,
                     engine);
  if (gradient) {
    declare_reorder(entry.reorder, weights, l.our_weights, false, engine);
    declare_reorder(entry.add, weights, l.our_weights, true, engine);
  } else {
    declare_reorder(entry.reorder, l.our_weights, weights, false, engine);
  }
  for (DnnlCall* call : {&entry.pass, &entry.reorder, &entry.add}) {
    declare_scratchpad(*call, engine);
    if (call->description.get(true) != nullptr)
      entry.scratchpad_bytes = std::max(entry.scratchpad_bytes, call->scratchpad_bytes());
  }
}

// Whether weights, or their gradient, come in another layout than the pass reads or writes.
bool lays_out_anew(const Conv2dProblem& p, Pass pass, const DnnlConv2d& entry) {
  return entry.reorders && !(pass == Pass::forward && p.weight_layout == entry.weight_layout);
}

// The workspace of one pass, cut up.
struct Cut {
  std::byte* weights;
  std::byte* scratchpad;
  float* added;  // the input's gradient before it is added
  std::int64_t bytes;

  Cut(const Conv2dProblem& p, Pass pass, GradMode mode, const DnnlConv2d& entry,
      Workspace workspace) {
    const bool accumulate = mode == GradMode::accumulate;
    const bool staged =
        lays_out_anew(p, pass, entry) || (pass == Pass::backward_weight && accumulate);
    const bool adds = pass == Pass::backward_input && accumulate;
    Sections sections(workspace);
    weights = sections.take<std::byte>(staged ? entry.weight_bytes : 0);
    scratchpad = sections.take<std::byte>(entry.scratchpad_bytes);
    added = sections.take<float>(adds ? p.n * p.h * p.w * p.c : 0);
    bytes = sections.bytes();
  }
};

}  // namespace

DnnlConv2d& OneDnnLibrary::conv2d_entry(const Conv2dProblem& p, Pass pass) {
  const std::array<std::int64_t, 13> key{p.n,
                                         p.h,
                                         p.w,
                                         p.c,
                                         p.o,
                                         p.kh,
                                         p.kw,
                                         p.stride,
                                         p.padding,
                                         p.groups,
                                         static_cast<std::int64_t>(p.activation),
                                         p.residual ? 1 : 0,
                                         static_cast<std::int64_t>(pass)};
  if (const auto found = conv2d_entries_.find(key); found != conv2d_entries_.end())
    return *found->second;
  auto entry = std::make_unique<DnnlConv2d>();
  guarded(p, pass, [&] { make_entry(p, pass, engine_, *entry); });
  if (entry->reorders && pass == Pass::forward)
    entry->weight_layout = number_of(entry->pass.operands.at(DNNL_ARG_WEIGHTS).get_desc());
  if (conv2d_entries_.size() >= kMostEntries) conv2d_entries_.clear();
  return *conv2d_entries_.emplace(key, std::move(entry)).first->second;
}

bool OneDnnLibrary::has_conv2d(const Conv2dProblem& problem, Pass pass) {
  return conv2d_entry(problem, pass).supported;
}

std::int64_t OneDnnLibrary::conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                             GradMode mode) {
  return Cut(problem, pass, mode, conv2d_entry(problem, pass), {}).bytes;
}

void OneDnnLibrary::conv2d(const Conv2dProblem& problem, Pass pass, GradMode mode,
                           const Conv2dOperands& operands, Workspace workspace) {
  DnnlConv2d& entry = conv2d_entry(problem, pass);
  const Cut cut(problem, pass, mode, entry, workspace);
  const bool accumulate = mode == GradMode::accumulate;
  DnnlCall& call = entry.pass;
  guarded(problem, pass, [&] {
    if (pass == Pass::backward_weight) {
      const bool staged = entry.reorders || accumulate;
      call.bind(DNNL_ARG_SRC, operands.x);
      call.bind(DNNL_ARG_DIFF_DST, operands.dy);
      call.bind(DNNL_ARG_DIFF_WEIGHTS, staged ? static_cast<void*>(cut.weights) : operands.out);
      call.run(stream_, cut.scratchpad);
      if (!staged) return;
      DnnlCall& store = accumulate ? entry.add : entry.reorder;
      store.bind(DNNL_ARG_FROM, cut.weights);
      store.bind(DNNL_ARG_TO, operands.out);
      store.run(stream_, cut.scratchpad);
      return;
    }
    const void* weights = operands.w;
    if (lays_out_anew(problem, pass, entry)) {
      entry.reorder.bind(DNNL_ARG_FROM, operands.w);
      entry.reorder.bind(DNNL_ARG_TO, cut.weights);
      entry.reorder.run(stream_, cut.scratchpad);
      weights = cut.weights;
    }
    call.bind(DNNL_ARG_WEIGHTS, weights);
    if (pass == Pass::forward) {
      call.bind(DNNL_ARG_SRC, operands.x);
      call.bind(DNNL_ARG_BIAS, operands.bias == nullptr ? kZeros : operands.bias);
      if (problem.residual) call.bind(kResidualArgument, operands.residual);
      call.bind(DNNL_ARG_DST, operands.out);
      call.run(stream_, cut.scratchpad);
      return;
    }
    call.bind(DNNL_ARG_DIFF_DST, operands.dy);
    call.bind(DNNL_ARG_DIFF_SRC, accumulate ? cut.added : operands.out);
    call.run(stream_, cut.scratchpad);
    if (!accumulate) return;
    const float* added = cut.added;
    float* out = operands.out;
    parallel_simd(threads_, problem.n * problem.h * problem.w * problem.c, kGrain,
                  [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
                    for (std::int64_t i = begin; i < end; ++i) out[i] += added[i];
                  });
  });
}

}  // namespace nf::cpu
