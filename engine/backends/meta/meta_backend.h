// The planner's device: grants addresses that don't exist and computes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "engine/backend.h"

namespace nf::meta {

/// Sizes are those of the backend it stands for, so that what a pool hands out is the same.
class MetaBackend final : public Backend {
 public:
  explicit MetaBackend(std::unique_ptr<Backend> target);

  std::string_view name() const override { return "meta"; }
  std::int64_t alignment() const override { return target_->alignment(); }
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes) override;
  std::int64_t memory_bytes() const override { return target_->memory_bytes(); }
  std::int64_t context_bytes() const override { return target_->context_bytes(); }
  int threads() const override { return target_->threads(); }
  void synchronize() override {}
  bool computes_in(DType dtype) const override { return target_->computes_in(dtype); }
  bool prepares_images() const override { return target_->prepares_images(); }

  // Data movement.
  void copy_from_host(View, const void*) override {}
  /// There is nothing to copy: the host gets zeros.
  void copy_to_host(void* dst, ConstView src) override;
  void copy(View, ConstView) override {}
  void fill(View, double) override {}
  void cast(ConstView, View) override {}

  // Input.
  void prepare_images(ConstView, ConstView, ConstView, View) override {}

  // Element-wise.
  void axpy(double, ConstView, View) override {}
  void scale(double, ConstView, View) override {}
  void add(ConstView, ConstView, View) override {}
  void relu_forward(Activation, ConstView, View) override {}
  void relu_backward(Activation, ConstView, ConstView, View, GradMode) override {}
  void dropout(double, PhiloxKey, ConstView, View, GradMode) override {}
  void fill_uniform(RandomAddress, double, double, View) override {}
  void fill_normal(RandomAddress, double, double, View) override {}

  // Reductions.
  std::int64_t reduce_workspace(std::int64_t rows, std::int64_t columns) const override {
    return target_->reduce_workspace(rows, columns);
  }
  void reduce(Reduction, ConstView, View, Workspace) override {}
  void spread_rows(double, ConstView, View, GradMode) override {}
  void all_finite(ConstView, View) override {}

  // Convolution.
  std::int64_t conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                GradMode mode) const override {
    return target_->conv2d_workspace(problem, pass, mode);
  }
  void conv2d_forward(const Conv2dProblem&, ConstView, ConstView, ConstView, ConstView, View,
                      Workspace) override {}
  std::int64_t conv2d_weight_parts(const Conv2dProblem& problem) const override {
    return target_->conv2d_weight_parts(problem);
  }
  std::int64_t conv2d_weight_layout(const Conv2dProblem& problem) const override {
    return target_->conv2d_weight_layout(problem);
  }
  std::int64_t conv2d_weight_bytes(const Conv2dProblem& problem,
                                   std::int64_t layout) const override {
    return target_->conv2d_weight_bytes(problem, layout);
  }
  std::int64_t conv2d_reorder_workspace(const Conv2dProblem& problem,
                                        std::int64_t layout) const override {
    return target_->conv2d_reorder_workspace(problem, layout);
  }
  void conv2d_reorder_weights(const Conv2dProblem&, std::int64_t, ConstView, View,
                              Workspace) override {}
  void conv2d_backward_input(const Conv2dProblem&, ConstView, ConstView, View, GradMode,
                             Workspace) override {}
  void conv2d_backward_weight(const Conv2dProblem&, ConstView, ConstView, View, GradMode,
                              Workspace) override {}
  std::int64_t bias_backward_workspace(std::int64_t rows, std::int64_t channels) const override {
    return target_->bias_backward_workspace(rows, channels);
  }
  void bias_backward(ConstView, View, GradMode, Workspace) override {}

  // Linear.
  std::int64_t linear_workspace(const LinearProblem& problem, Pass pass,
                                GradMode mode) const override {
    return target_->linear_workspace(problem, pass, mode);
  }
  void linear_forward(const LinearProblem&, ConstView, ConstView, ConstView, View,
                      Workspace) override {}
  void linear_backward_input(const LinearProblem&, ConstView, ConstView, View, GradMode,
                             Workspace) override {}
  void linear_backward_weight(const LinearProblem&, ConstView, ConstView, View, GradMode,
                              Workspace) override {}

  // Batch norm.
  std::int64_t batch_norm_workspace(const BatchNormProblem& problem) const override {
    return target_->batch_norm_workspace(problem);
  }
  void batch_norm_forward_train(const BatchNormProblem&, ConstView, ConstView, ConstView, ConstView,
                                View, View, View, View, View, Workspace) override {}
  void batch_norm_forward_eval(const BatchNormProblem&, ConstView, ConstView, ConstView, ConstView,
                               ConstView, ConstView, View) override {}
  void batch_norm_backward(const BatchNormProblem&, ConstView, ConstView, ConstView, ConstView,
                           ConstView, ConstView, ConstView, View, View, View, View, GradMode,
                           Workspace) override {}
  void batch_norm_fold(double, ConstView, ConstView, ConstView, ConstView, ConstView, ConstView,
                       View, View) override {}

  // Pooling.
  void max_pool_forward(const Pool2dProblem&, ConstView, View, View) override {}
  void max_pool_backward(const Pool2dProblem&, ConstView, ConstView, View, GradMode) override {}
  void avg_pool_forward(const Pool2dProblem&, ConstView, View) override {}
  void avg_pool_backward(const Pool2dProblem&, ConstView, View, GradMode) override {}
  void adaptive_avg_pool_forward(ConstView, View) override {}
  void adaptive_avg_pool_backward(ConstView, View, GradMode) override {}

  // Loss.
  std::int64_t softmax_cross_entropy_workspace(std::int64_t rows,
                                               std::int64_t classes) const override {
    return target_->softmax_cross_entropy_workspace(rows, classes);
  }
  void softmax_cross_entropy_forward(ConstView, ConstView, double, View, View, Workspace) override {
  }
  void softmax_cross_entropy_backward(ConstView, ConstView, double, ConstView, View,
                                      GradMode) override {}
  void softmax_cross_entropy_forward_backward(ConstView, ConstView, double, View, View, View,
                                              Workspace) override {}

  // Optimizers.
  void sgd(const SgdStep&, std::span<const SgdParameter>) override {}
  void adamw(const AdamWStep&, std::span<const AdamWParameter>) override {}
  void gradients_finite(std::span<const ConstView>, View) override {}
  std::int64_t gradient_norm_workspace(std::span<const View> gradients) const override {
    return target_->gradient_norm_workspace(gradients);
  }
  void gradient_norm(std::span<const View>, View, Workspace) override {}
  void clip_gradients(std::span<const View>, double, ConstView) override {}

 private:
  std::unique_ptr<Backend> target_;
};

}  // namespace nf::meta
