#include "kernels/softmax_cross_entropy.h"

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf::NF_TARGET {

std::int64_t GpuBackend::softmax_cross_entropy_workspace(std::int64_t rows,
                                                         std::int64_t classes) const {
  return NF_TARGET::softmax_cross_entropy_workspace(rows, classes);
}

void GpuBackend::softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                               View loss, View correct, Workspace workspace) {
  constexpr std::string_view op = "softmax_cross_entropy";
  const std::int64_t rows = logits.shape[0], classes = logits.shape[1];
  check_workspace(op, workspace, softmax_cross_entropy_workspace(rows, classes));
  with_storage(op, logits.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::softmax_cross_entropy_forward(
        stream(), elements<T>(op, logits), elements<std::int32_t>(op, labels), rows, classes,
        smoothing, elements<float>(op, loss), elements<std::int32_t>(op, correct), workspace.data);
  });
}

void GpuBackend::softmax_cross_entropy_backward(ConstView logits, ConstView labels,
                                                double smoothing, ConstView dloss, View dlogits,
                                                GradMode mode) {
  constexpr std::string_view op = "softmax_cross_entropy_backward";
  with_storage(op, logits.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::softmax_cross_entropy_backward(
        stream(), elements<T>(op, logits), elements<std::int32_t>(op, labels), logits.shape[0],
        logits.shape[1], smoothing, elements<float>(op, dloss), elements<T>(op, dlogits),
        accumulates(mode));
  });
}

void GpuBackend::softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels,
                                                        double smoothing, View loss, View correct,
                                                        View dlogits, Workspace workspace) {
  constexpr std::string_view op = "softmax_cross_entropy";
  const std::int64_t rows = logits.shape[0], classes = logits.shape[1];
  check_workspace(op, workspace, softmax_cross_entropy_workspace(rows, classes));
  with_storage(op, logits.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    NF_TARGET::softmax_cross_entropy_forward_backward(
        stream(), elements<T>(op, logits), elements<std::int32_t>(op, labels), rows, classes,
        smoothing, elements<float>(op, loss), elements<std::int32_t>(op, correct),
        elements<T>(op, dlogits), workspace.data);
  });
}

}  // namespace nf::NF_TARGET
