#include "kernels/optimizer.h"

#include <vector>

#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"

namespace nf::NF_TARGET {
namespace {

std::vector<GradientTensor> tensors_of(std::string_view op, std::span<const View> gradients) {
  std::vector<GradientTensor> tensors;
  for (const View& gradient : gradients)
    tensors.push_back({elements<float>(op, gradient), gradient.numel()});
  return tensors;
}

std::int64_t count_of(const std::vector<GradientTensor>& tensors) {
  return static_cast<std::int64_t>(tensors.size());
}

}  // namespace

void GpuBackend::sgd(const SgdStep& step, std::span<const SgdParameter> parameters) {
  std::vector<SgdTensor> tensors;
  for (const SgdParameter& p : parameters) {
    NF_CHECK(p.momentum || step.momentum == 0.0, "sgd: momentum {} needs a buffer", step.momentum);
    tensors.push_back({elements<float>("sgd", p.w), elements<float>("sgd", p.grad),
                       elements<float>("sgd", p.momentum), p.w.numel()});
  }
  NF_TARGET::sgd(stream(), tensors.data(), static_cast<std::int64_t>(tensors.size()),
                 {.learning_rate = step.learning_rate,
                  .momentum = step.momentum,
                  .weight_decay = step.weight_decay,
                  .nesterov = step.nesterov,
                  .first = step.first,
                  .source = step.source});
}

void GpuBackend::adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) {
  NF_CHECK(step.step >= 1, "adamw: steps are counted from 1, got {}", step.step);
  std::vector<AdamWTensor> tensors;
  for (const AdamWParameter& p : parameters)
    tensors.push_back({elements<float>("adamw", p.w), elements<float>("adamw", p.grad),
                       elements<float>("adamw", p.m), elements<float>("adamw", p.v), p.w.numel()});
  NF_TARGET::adamw(stream(), tensors.data(), static_cast<std::int64_t>(tensors.size()),
                   {.learning_rate = step.learning_rate,
                    .beta1 = step.beta1,
                    .beta2 = step.beta2,
                    .eps = step.eps,
                    .weight_decay = step.weight_decay,
                    .step = step.step,
                    .source = step.source});
}

void GpuBackend::gradients_finite(std::span<const ConstView> gradients, View flag) {
  std::vector<GradientTensor> tensors;
  for (const ConstView& gradient : gradients)
    tensors.push_back(
        {const_cast<float*>(elements<float>("gradients_finite", gradient)), gradient.numel()});
  NF_TARGET::gradients_finite(stream(), tensors.data(), count_of(tensors),
                              elements<std::int32_t>("gradients_finite", flag));
}

std::int64_t GpuBackend::gradient_norm_workspace(std::span<const View> gradients) const {
  const std::vector<GradientTensor> tensors = tensors_of("gradient_norm", gradients);
  return NF_TARGET::gradient_norm_workspace(tensors.data(), count_of(tensors));
}

void GpuBackend::gradient_norm(std::span<const View> gradients, View norm, Workspace workspace) {
  check_workspace("gradient_norm", workspace, gradient_norm_workspace(gradients));
  const std::vector<GradientTensor> tensors = tensors_of("gradient_norm", gradients);
  NF_TARGET::gradient_norm(stream(), tensors.data(), count_of(tensors),
                           elements<float>("gradient_norm", norm), workspace.data);
}

void GpuBackend::clip_gradients(std::span<const View> gradients, double max_norm, ConstView norm) {
  const std::vector<GradientTensor> tensors = tensors_of("clip_gradients", gradients);
  NF_TARGET::clip_gradients(stream(), tensors.data(), count_of(tensors),
                            elements<float>("clip_gradients", norm), static_cast<float>(max_norm));
}

}  // namespace nf::NF_TARGET
