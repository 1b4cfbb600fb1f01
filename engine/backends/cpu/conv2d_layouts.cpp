// Layouts of a convolution's weights in oneDNN: numbered, so that weights which stay the same are
// brought into the one that a forward pass wants once, not in each pass.
#include <algorithm>
#include <utility>

#include "engine/backends/cpu/onednn_library.h"
#include "engine/backends/cpu/onednn_versions.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {

dnnl::memory::desc plain_conv2d_weights(const Conv2dProblem& p, bool any) {
  using Tag = dnnl::memory::format_tag;
  const bool grouped = p.groups > 1;
  const dnnl::memory::dims dims =
      grouped ? dnnl::memory::dims{p.groups, p.o / p.groups, p.c / p.groups, p.kh, p.kw}
              : dnnl::memory::dims{p.o, p.c, p.kh, p.kw};
  return {dims, dnnl::memory::data_type::f32, any ? Tag::any : grouped ? Tag::gohwi : Tag::ohwi};
}

std::int64_t OneDnnLibrary::number_of(const dnnl::memory::desc& layout) {
  const auto found = std::find(layouts_.begin(), layouts_.end(), layout);
  const std::int64_t number = found - layouts_.begin() + 1;
  if (found == layouts_.end()) layouts_.push_back(layout);
  return number;
}

dnnl::memory::desc OneDnnLibrary::numbered(const Conv2dProblem& problem,
                                           std::int64_t number) const {
  const dnnl::memory::desc plain = plain_conv2d_weights(problem, false);
  if (number == 0) return plain;
  NF_CHECK(number > 0 && std::cmp_less_equal(number, layouts_.size()),
           "conv2d: weights are in layout {}, there are {}", number, layouts_.size());
  const dnnl::memory::desc& layout = layouts_[static_cast<std::size_t>(number - 1)];
  NF_CHECK(dims_of(layout) == dims_of(plain), "conv2d: layout {} is for weights of another shape",
           number);
  return layout;
}

DnnlCall OneDnnLibrary::conv2d_reorder(const Conv2dProblem& problem, std::int64_t layout) const {
  const dnnl::memory::desc from = numbered(problem, problem.weight_layout);
  const dnnl::memory::desc to = numbered(problem, layout);
  DnnlCall call;
  guarded(problem, Pass::forward, [&] {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    call.description = dnnl::reorder::primitive_desc(engine_, from, engine_, to, attr);
    call.declare(DNNL_ARG_FROM, from, engine_);
    call.declare(DNNL_ARG_TO, to, engine_);
    if (call.scratchpad_bytes() > 0)
      call.declare(DNNL_ARG_SCRATCHPAD, call.description.scratchpad_desc(), engine_);
  });
  return call;
}

std::int64_t OneDnnLibrary::conv2d_weight_layout(const Conv2dProblem& problem) {
  const DnnlConv2d& entry = conv2d_entry(problem, Pass::forward);
  return entry.reorders ? entry.weight_layout : 0;
}

std::int64_t OneDnnLibrary::conv2d_weight_bytes(const Conv2dProblem& problem, std::int64_t layout) {
  return static_cast<std::int64_t>(numbered(problem, layout).get_size());
}

std::int64_t OneDnnLibrary::conv2d_reorder_workspace(const Conv2dProblem& problem,
                                                     std::int64_t layout) {
  return conv2d_reorder(problem, layout).scratchpad_bytes();
}

void OneDnnLibrary::conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout,
                                           const float* w, float* out, Workspace workspace) {
  DnnlCall call = conv2d_reorder(problem, layout);
  check_workspace("conv2d", workspace, call.scratchpad_bytes());
  call.bind(DNNL_ARG_FROM, w);
  call.bind(DNNL_ARG_TO, out);
  guarded(problem, Pass::forward, [&] { call.run(stream_, workspace.data); });
}

}  // namespace nf::cpu
