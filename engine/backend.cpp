#include "engine/backend.h"

#include "engine/error.h"

namespace nf {

std::int64_t Backend::conv2d_weight_bytes(const Conv2dProblem& p, std::int64_t) const {
  return p.o * p.kh * p.kw * (p.c / p.groups) * size_of(p.dtype);
}

std::int64_t Backend::conv2d_reorder_workspace(const Conv2dProblem&, std::int64_t) const {
  return 0;
}

void Backend::conv2d_reorder_weights(const Conv2dProblem& p, std::int64_t layout, ConstView, View,
                                     Workspace) {
  fail("conv2d: {} has one layout of weights, not {} or {}", name(), p.weight_layout, layout);
}

void Backend::begin_capture() { fail("{}: calls can't be captured on this device", name()); }

std::unique_ptr<CapturedCalls> Backend::end_capture() {
  fail("{}: calls can't be captured on this device", name());
}

}  // namespace nf
