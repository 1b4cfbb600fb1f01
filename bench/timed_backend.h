// A backend that hands every call on to another one and keeps what it took.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/backend.h"

namespace nf::bench {

/// Calls that are told as one.
struct CallKind {
  std::string unit;  ///< as memory_tags() has it, empty outside of all units
  std::string_view phase;
  std::string_view op;
  std::string_view pass;  ///< the primitive's own, else the phase
  auto operator<=>(const CallKind&) const = default;
};

struct CallCost {
  std::int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  ///< of convolutions and linear layers, two per multiply-add
  double bytes = 0;  ///< that can't be avoided: each operand read or written once

  CallCost& operator+=(const CallCost& other);
};

using Ledger = std::map<CallKind, CallCost>;

/// Computing calls are timed one by one, each with the device's work that it starts; all others are
/// handed on as they are. Captures nothing.
class TimedBackend final : public Backend {
 public:
  explicit TimedBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  /// What was called since the last time.
  Ledger take() { return std::exchange(ledger_, {}); }

  std::string_view name() const override { return inner_->name(); }
  std::int64_t alignment() const override { return inner_->alignment(); }
  std::unique_ptr<AddressRange> reserve(std::int64_t bytes) override {
    return inner_->reserve(bytes);
  }
  std::int64_t memory_bytes() const override { return inner_->memory_bytes(); }
  std::int64_t context_bytes() const override { return inner_->context_bytes(); }
  int threads() const override { return inner_->threads(); }
  void synchronize() override { inner_->synchronize(); }
  bool computes_in(DType dtype) const override { return inner_->computes_in(dtype); }
  bool prepares_images() const override { return inner_->prepares_images(); }

  void copy_from_host(View dst, const void* src) override;
  void copy_to_host(void* dst, ConstView src) override;
  void copy(View dst, ConstView src) override;
  void copy_columns(View dst, ConstView src, std::int64_t first) override;
  void fill(View dst, double value) override;
  void cast(ConstView x, View y) override;
  void prepare_images(ConstView pixels, ConstView windows, ConstView tables, View out) override;

  void axpy(double alpha, ConstView x, View y) override;
  void scale(double alpha, ConstView x, View y) override;
  void add(ConstView a, ConstView b, View out) override;
  void relu_forward(Activation activation, ConstView x, View y) override;
  void relu_backward(Activation activation, ConstView y, ConstView dy, View dx,
                     GradMode mode) override;
  void dropout(double p, PhiloxKey key, ConstView x, View y, GradMode mode) override;
  void fill_uniform(RandomAddress at, double low, double high, View y) override;
  void fill_normal(RandomAddress at, double mean, double stddev, View y) override;

  std::int64_t reduce_workspace(std::int64_t rows, std::int64_t columns) const override {
    return inner_->reduce_workspace(rows, columns);
  }
  void reduce(Reduction reduction, ConstView x, View y, Workspace workspace) override;
  void spread_rows(double factor, ConstView dy, View dx, GradMode mode) override;
  void all_finite(ConstView x, View flag) override;

  std::int64_t conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                GradMode mode) const override {
    return inner_->conv2d_workspace(problem, pass, mode);
  }
  void conv2d_forward(const Conv2dProblem& problem, ConstView x, ConstView w, ConstView bias,
                      ConstView residual, View y, Workspace workspace) override;
  std::int64_t conv2d_weight_parts(const Conv2dProblem& problem) const override {
    return inner_->conv2d_weight_parts(problem);
  }
  std::int64_t conv2d_weight_layout(const Conv2dProblem& problem) const override {
    return inner_->conv2d_weight_layout(problem);
  }
  std::int64_t conv2d_weight_bytes(const Conv2dProblem& problem,
                                   std::int64_t layout) const override {
    return inner_->conv2d_weight_bytes(problem, layout);
  }
  std::int64_t conv2d_reorder_workspace(const Conv2dProblem& problem,
                                        std::int64_t layout) const override {
    return inner_->conv2d_reorder_workspace(problem, layout);
  }
  void conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout, ConstView w,
                              View out, Workspace workspace) override;
  void conv2d_backward_input(const Conv2dProblem& problem, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override;
  void conv2d_backward_weight(const Conv2dProblem& problem, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override;
  std::int64_t bias_backward_workspace(std::int64_t rows, std::int64_t channels) const override {
    return inner_->bias_backward_workspace(rows, channels);
  }
  void bias_backward(ConstView dy, View db, GradMode mode, Workspace workspace) override;

  std::int64_t linear_workspace(const LinearProblem& problem, Pass pass,
                                GradMode mode) const override {
    return inner_->linear_workspace(problem, pass, mode);
  }
  void linear_forward(const LinearProblem& problem, ConstView x, ConstView w, ConstView bias,
                      View y, Workspace workspace) override;
  void linear_backward_input(const LinearProblem& problem, ConstView dy, ConstView w, View dx,
                             GradMode mode, Workspace workspace) override;
  void linear_backward_weight(const LinearProblem& problem, ConstView x, ConstView dy, View dw,
                              GradMode mode, Workspace workspace) override;

  std::int64_t batch_norm_workspace(const BatchNormProblem& problem) const override {
    return inner_->batch_norm_workspace(problem);
  }
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

  void max_pool_forward(const Pool2dProblem& problem, ConstView x, View y, View argmax) override;
  void max_pool_backward(const Pool2dProblem& problem, ConstView argmax, ConstView dy, View dx,
                         GradMode mode) override;
  void avg_pool_forward(const Pool2dProblem& problem, ConstView x, View y) override;
  void avg_pool_backward(const Pool2dProblem& problem, ConstView dy, View dx,
                         GradMode mode) override;
  void adaptive_avg_pool_forward(ConstView x, View y) override;
  void adaptive_avg_pool_backward(ConstView dy, View dx, GradMode mode) override;

  std::int64_t softmax_cross_entropy_workspace(std::int64_t rows,
                                               std::int64_t classes) const override {
    return inner_->softmax_cross_entropy_workspace(rows, classes);
  }
  void softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                     View loss, View correct, Workspace workspace) override;
  void softmax_cross_entropy_backward(ConstView logits, ConstView labels, double smoothing,
                                      ConstView dloss, View dlogits, GradMode mode) override;
  void softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels, double smoothing,
                                              View loss, View correct, View dlogits,
                                              Workspace workspace) override;

  void sgd(const SgdStep& step, std::span<const SgdParameter> parameters) override;
  void adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) override;
  void gradients_finite(std::span<const ConstView> gradients, View flag) override;
  std::int64_t gradient_norm_workspace(std::span<const View> gradients) const override {
    return inner_->gradient_norm_workspace(gradients);
  }
  void gradient_norm(std::span<const View> gradients, View norm, Workspace workspace) override;
  void clip_gradients(std::span<const View> gradients, double max_norm, ConstView norm) override;

 private:
  template <typename Call>
  void timed(std::string_view op, std::string_view pass, double flops, std::int64_t bytes,
             const Call& call);
  /// A primitive that only moves memory, or computes little for what it moves.
  template <typename Call>
  void timed(std::string_view op, std::int64_t bytes, const Call& call);

  std::unique_ptr<Backend> inner_;
  Ledger ledger_;
};

}  // namespace nf::bench
