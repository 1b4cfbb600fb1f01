// The CPU backend: oneDNN where it was built in, Eigen and plain loops elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "engine/backend.h"
#include "engine/backends/cpu/onednn.h"

namespace nf::cpu {

/// Computes in f32 and f64. For one calling thread at a time.
class CpuBackend final : public Backend {
 public:
  /// Throws Error for a negative number of threads.
  explicit CpuBackend(const CpuOptions& options);

  std::string_view name() const override;
  std::int64_t alignment() const override;
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes) override;
  std::int64_t memory_bytes() const override;
  int threads() const override { return threads_; }
  void synchronize() override;
  bool computes_in(DType dtype) const override;
  bool prepares_images() const override { return false; }

  // Data movement.
  void copy_from_host(View dst, const void* src) override;
  void copy_to_host(void* dst, ConstView src) override;
  void copy(View dst, ConstView src) override;
  void copy_columns(View dst, ConstView src, std::int64_t first) override;
  void fill(View dst, double value) override;
  void cast(ConstView x, View y) override;

  // Input.
  void prepare_images(ConstView pixels, ConstView windows, ConstView tables, View out) override;

  // Element-wise.
  void axpy(double alpha, ConstView x, View y) override;
  void scale(double alpha, ConstView x, View y) override;
  void add(ConstView a, ConstView b, View out) override;
  void relu_forward(Activation activation, ConstView x, View y) override;
  void relu_backward(Activation activation, ConstView y, ConstView dy, View dx,
                     GradMode mode) override;
  void dropout(double p, PhiloxKey key, ConstView x, View y, GradMode mode) override;
  void fill_uniform(RandomAddress at, double low, double high, View y) override;
  void fill_normal(RandomAddress at, double mean, double stddev, View y) override;

  // Reductions.
  std::int64_t reduce_workspace(std::int64_t, std::int64_t) const override { return 0; }
  void reduce(Reduction reduction, ConstView x, View y, Workspace workspace) override;
  void spread_rows(double factor, ConstView dy, View dx, GradMode mode) override;
  void all_finite(ConstView x, View flag) override;

  // Convolution.
  std::int64_t conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                GradMode mode) const override;
  void conv2d_forward(const Conv2dProblem& problem, ConstView x, ConstView w, ConstView bias,
                      ConstView residual, View y, Workspace workspace) override;
  std::int64_t conv2d_weight_layout(const Conv2dProblem& problem) const override;
  std::int64_t conv2d_weight_parts(const Conv2dProblem& problem) const override;
  std::int64_t conv2d_weight_bytes(const Conv2dProblem& problem,
                                   std::int64_t layout) const override;
  std::int64_t conv2d_reorder_workspace(const Conv2dProblem& problem,
                                        std::int64_t layout) const override;
  void conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout, ConstView w,
                              View out, Workspace workspace) override;
  void conv2d_backward_input(const Conv2dProblem& problem, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override;
  void conv2d_backward_weight(const Conv2dProblem& problem, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override;
  std::int64_t bias_backward_workspace(std::int64_t, std::int64_t) const override { return 0; }
  void bias_backward(ConstView dy, View db, GradMode mode, Workspace) override;

  // Linear.
  std::int64_t linear_workspace(const LinearProblem& problem, Pass pass,
                                GradMode mode) const override;
  void linear_forward(const LinearProblem& problem, ConstView x, ConstView w, ConstView bias,
                      View y, Workspace workspace) override;
  void linear_backward_input(const LinearProblem& problem, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override;
  void linear_backward_weight(const LinearProblem& problem, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override;

  // Batch norm.
  std::int64_t batch_norm_workspace(const BatchNormProblem& problem) const override;
  void batch_norm_forward_train(const BatchNormProblem& problem, ConstView x, ConstView residual,
                                ConstView gamma, ConstView beta, View running_mean,
                                View running_var, View y, View save_mean, View save_invstd,
                                Workspace workspace) override;
  void batch_norm_forward_eval(const BatchNormProblem& problem, ConstView x, ConstView residual,
                               ConstView gamma, ConstView beta, ConstView running_mean,
                               ConstView running_var, View y) override;
  void batch_norm_backward(const BatchNormProblem& problem, ConstView x, ConstView y, ConstView dy,
                           ConstView gamma, ConstView beta, ConstView save_mean,
                           ConstView save_invstd, View dx, View dresidual, View dgamma, View dbeta,
                           GradMode mode, Workspace workspace) override;
  void batch_norm_fold(double eps, ConstView gamma, ConstView beta, ConstView running_mean,
                       ConstView running_var, ConstView w, ConstView bias, View folded_w,
                       View folded_bias) override;

  // Pooling.
  void max_pool_forward(const Pool2dProblem& problem, ConstView x, View y, View argmax) override;
  void max_pool_backward(const Pool2dProblem& problem, ConstView argmax, ConstView dy, View dx,
                         GradMode mode) override;
  void avg_pool_forward(const Pool2dProblem& problem, ConstView x, View y) override;
  void avg_pool_backward(const Pool2dProblem& problem, ConstView dy, View dx,
                         GradMode mode) override;
  void adaptive_avg_pool_forward(ConstView x, View y) override;
  void adaptive_avg_pool_backward(ConstView dy, View dx, GradMode mode) override;

  // Loss.
  std::int64_t softmax_cross_entropy_workspace(std::int64_t, std::int64_t) const override {
    return 0;
  }
  void softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                     View loss, View correct, Workspace) override;
  void softmax_cross_entropy_backward(ConstView logits, ConstView labels, double smoothing,
                                      ConstView dloss, View dlogits, GradMode mode) override;
  void softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels, double smoothing,
                                              View loss, View correct, View dlogits,
                                              Workspace) override;

  // Optimizers.
  void sgd(const SgdStep& step, std::span<const SgdParameter> parameters) override;
  void adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) override;
  void gradients_finite(std::span<const ConstView> gradients, View flag) override;
  std::int64_t gradient_norm_workspace(std::span<const View>) const override { return 0; }
  void gradient_norm(std::span<const View> gradients, View norm, Workspace) override;
  void clip_gradients(std::span<const View> gradients, double max_norm, ConstView norm) override;

 private:
  int threads_;
  std::unique_ptr<OneDnn> onednn_;  // null: the Eigen path
};

}  // namespace nf::cpu
