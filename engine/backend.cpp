#include "engine/backend.h"

#include "engine/error.h"

namespace nf {

void check_columns(ConstView dst, ConstView src, std::int64_t first) {
  NF_CHECK(dst.dtype == src.dtype && dst.shape.rank() == 2 && src.shape.rank() == 2 &&
               dst.shape[0] == src.shape[0] && first >= 0 && first + dst.shape[1] <= src.shape[1],
           "copy_columns: {} {} can't be columns {} on of {} {}", to_string(dst.dtype),
           dst.shape.str(), first, to_string(src.dtype), src.shape.str());
}

void Backend::copy_columns(View dst, ConstView src, std::int64_t first) {
  check_columns(dst, src, first);
  const Shape row{1, dst.shape[1]};
  const std::int64_t size = size_of(src.dtype), width = dst.shape[1], columns = src.shape[1];
  for (std::int64_t i = 0; i < dst.shape[0]; ++i)
    copy({dst.as<std::byte>() + i * width * size, dst.dtype, row},
         {src.as<std::byte>() + (i * columns + first) * size, src.dtype, row});
}

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
