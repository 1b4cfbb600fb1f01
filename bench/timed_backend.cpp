#include "bench/timed_backend.h"

#include "bench/net_shapes.h"
#include "engine/memory/scope.h"
#include "engine/timer.h"

namespace nf::bench {
namespace {

std::int64_t bytes_of(const ConstView& view) {
  return view ? view.numel() * size_of(view.dtype) : 0;
}

template <typename... Views>
std::int64_t bytes(const Views&... views) {
  return (bytes_of(views) + ...);
}

/// What is added to is read as well.
std::int64_t stored(const View& view, GradMode mode) {
  return bytes(view) * (mode == GradMode::accumulate ? 2 : 1);
}

template <typename V>
std::int64_t bytes_of_all(std::span<const V> views) {
  std::int64_t sum = 0;
  for (const V& view : views) sum += bytes(view);
  return sum;
}

// Memory bounds depthwise convolutions, arithmetic most others.
std::string_view name_of(const Conv2dProblem& problem) {
  return problem.depthwise() ? "conv2d_depthwise" : "conv2d";
}

}  // namespace

CallCost& CallCost::operator+=(const CallCost& other) {
  calls += other.calls;
  seconds += other.seconds;
  flops += other.flops;
  bytes += other.bytes;
  return *this;
}

template <typename Call>
void TimedBackend::timed(std::string_view op, std::string_view pass, double flops,
                         std::int64_t bytes, const Call& call) {
  const Timer timer;
  call();
  inner_->synchronize();
  const double seconds = timer.seconds();
  const MemoryTags& tags = memory_tags();
  ledger_[{std::string(tags.unit), tags.phase, op, pass.empty() ? tags.phase : pass}] +=
      {1, seconds, flops, static_cast<double>(bytes)};
}

template <typename Call>
void TimedBackend::timed(std::string_view op, std::int64_t bytes, const Call& call) {
  timed(op, {}, 0, bytes, call);
}

void TimedBackend::copy_from_host(View dst, const void* src) {
  timed("copy_from_host", 2 * bytes(dst), [&] { inner_->copy_from_host(dst, src); });
}

void TimedBackend::copy_to_host(void* dst, ConstView src) {
  timed("copy_to_host", 2 * bytes(src), [&] { inner_->copy_to_host(dst, src); });
}

void TimedBackend::copy(View dst, ConstView src) {
  timed("copy", bytes(dst, src), [&] { inner_->copy(dst, src); });
}

void TimedBackend::copy_columns(View dst, ConstView src, std::int64_t first) {
  timed("copy_columns", 2 * bytes(dst), [&] { inner_->copy_columns(dst, src, first); });
}

void TimedBackend::fill(View dst, double value) {
  timed("fill", bytes(dst), [&] { inner_->fill(dst, value); });
}

void TimedBackend::cast(ConstView x, View y) {
  timed("cast", bytes(x, y), [&] { inner_->cast(x, y); });
}

void TimedBackend::prepare_images(ConstView pixels, ConstView windows, ConstView tables, View out) {
  timed("prepare_images", bytes(pixels, windows, tables, out),
        [&] { inner_->prepare_images(pixels, windows, tables, out); });
}

void TimedBackend::axpy(double alpha, ConstView x, View y) {
  timed("axpy", bytes(x, y, y), [&] { inner_->axpy(alpha, x, y); });
}

void TimedBackend::scale(double alpha, ConstView x, View y) {
  timed("scale", bytes(x, y), [&] { inner_->scale(alpha, x, y); });
}

void TimedBackend::add(ConstView a, ConstView b, View out) {
  timed("add", bytes(a, b, out), [&] { inner_->add(a, b, out); });
}

void TimedBackend::relu_forward(Activation activation, ConstView x, View y) {
  timed("relu", bytes(x, y), [&] { inner_->relu_forward(activation, x, y); });
}

void TimedBackend::relu_backward(Activation activation, ConstView y, ConstView dy, View dx,
                                 GradMode mode) {
  timed("relu", bytes(y, dy) + stored(dx, mode),
        [&] { inner_->relu_backward(activation, y, dy, dx, mode); });
}

void TimedBackend::dropout(double p, PhiloxKey key, ConstView x, View y, GradMode mode) {
  timed("dropout", bytes(x) + stored(y, mode), [&] { inner_->dropout(p, key, x, y, mode); });
}

void TimedBackend::fill_uniform(RandomAddress at, double low, double high, View y) {
  timed("fill_uniform", bytes(y), [&] { inner_->fill_uniform(at, low, high, y); });
}

void TimedBackend::fill_normal(RandomAddress at, double mean, double stddev, View y) {
  timed("fill_normal", bytes(y), [&] { inner_->fill_normal(at, mean, stddev, y); });
}

void TimedBackend::reduce(Reduction reduction, ConstView x, View y, Workspace workspace) {
  timed("reduce", bytes(x, y), [&] { inner_->reduce(reduction, x, y, workspace); });
}

void TimedBackend::spread_rows(double factor, ConstView dy, View dx, GradMode mode) {
  timed("spread_rows", bytes(dy) + stored(dx, mode),
        [&] { inner_->spread_rows(factor, dy, dx, mode); });
}

void TimedBackend::all_finite(ConstView x, View flag) {
  timed("all_finite", bytes(x, flag), [&] { inner_->all_finite(x, flag); });
}

void TimedBackend::conv2d_forward(const Conv2dProblem& problem, ConstView x, ConstView w,
                                  ConstView bias, ConstView residual, View y, Workspace workspace) {
  timed(name_of(problem), "forward", flops(problem), bytes(x, w, bias, residual, y),
        [&] { inner_->conv2d_forward(problem, x, w, bias, residual, y, workspace); });
}

void TimedBackend::conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout,
                                          ConstView w, View out, Workspace workspace) {
  timed("conv2d_reorder_weights", bytes(w, out),
        [&] { inner_->conv2d_reorder_weights(problem, layout, w, out, workspace); });
}

void TimedBackend::conv2d_backward_input(const Conv2dProblem& problem, ConstView dy, ConstView w,
                                         View dx, GradMode mode, Workspace workspace) {
  timed(name_of(problem), "backward_input", flops(problem), bytes(dy, w) + stored(dx, mode),
        [&] { inner_->conv2d_backward_input(problem, dy, w, dx, mode, workspace); });
}

void TimedBackend::conv2d_backward_weight(const Conv2dProblem& problem, ConstView x, ConstView dy,
                                          View dw, GradMode mode, Workspace workspace) {
  timed(name_of(problem), "backward_weight", flops(problem), bytes(x, dy) + stored(dw, mode),
        [&] { inner_->conv2d_backward_weight(problem, x, dy, dw, mode, workspace); });
}

void TimedBackend::bias_backward(ConstView dy, View db, GradMode mode, Workspace workspace) {
  timed("bias", bytes(dy) + stored(db, mode),
        [&] { inner_->bias_backward(dy, db, mode, workspace); });
}

void TimedBackend::linear_forward(const LinearProblem& problem, ConstView x, ConstView w,
                                  ConstView bias, View y, Workspace workspace) {
  timed("linear", "forward", flops(problem), bytes(x, w, bias, y),
        [&] { inner_->linear_forward(problem, x, w, bias, y, workspace); });
}

void TimedBackend::linear_backward_input(const LinearProblem& problem, ConstView dy, ConstView w,
                                         View dx, GradMode mode, Workspace workspace) {
  timed("linear", "backward_input", flops(problem), bytes(dy, w) + stored(dx, mode),
        [&] { inner_->linear_backward_input(problem, dy, w, dx, mode, workspace); });
}

void TimedBackend::linear_backward_weight(const LinearProblem& problem, ConstView x, ConstView dy,
                                          View dw, GradMode mode, Workspace workspace) {
  timed("linear", "backward_weight", flops(problem), bytes(x, dy) + stored(dw, mode),
        [&] { inner_->linear_backward_weight(problem, x, dy, dw, mode, workspace); });
}

void TimedBackend::batch_norm_forward_train(const BatchNormProblem& problem, ConstView x,
                                            ConstView residual, ConstView gamma, ConstView beta,
                                            View running_mean, View running_var, View y,
                                            View save_mean, View save_invstd, Workspace workspace) {
  timed("batch_norm", bytes(x, residual, y), [&] {
    inner_->batch_norm_forward_train(problem, x, residual, gamma, beta, running_mean, running_var,
                                     y, save_mean, save_invstd, workspace);
  });
}

void TimedBackend::batch_norm_forward_eval(const BatchNormProblem& problem, ConstView x,
                                           ConstView residual, ConstView gamma, ConstView beta,
                                           ConstView running_mean, ConstView running_var, View y) {
  timed("batch_norm", bytes(x, residual, y), [&] {
    inner_->batch_norm_forward_eval(problem, x, residual, gamma, beta, running_mean, running_var,
                                    y);
  });
}

void TimedBackend::batch_norm_backward(const BatchNormProblem& problem, ConstView x, ConstView y,
                                       ConstView dy, ConstView gamma, ConstView beta,
                                       ConstView save_mean, ConstView save_invstd, View dx,
                                       View dresidual, View dgamma, View dbeta, GradMode mode,
                                       Workspace workspace) {
  timed("batch_norm", bytes(x, y, dy, dx, dresidual), [&] {
    inner_->batch_norm_backward(problem, x, y, dy, gamma, beta, save_mean, save_invstd, dx,
                                dresidual, dgamma, dbeta, mode, workspace);
  });
}

void TimedBackend::batch_norm_fold(double eps, ConstView gamma, ConstView beta,
                                   ConstView running_mean, ConstView running_var, ConstView w,
                                   ConstView bias, View folded_w, View folded_bias) {
  timed("batch_norm_fold", bytes(w, folded_w), [&] {
    inner_->batch_norm_fold(eps, gamma, beta, running_mean, running_var, w, bias, folded_w,
                            folded_bias);
  });
}

void TimedBackend::max_pool_forward(const Pool2dProblem& problem, ConstView x, View y,
                                    View argmax) {
  timed("max_pool", bytes(x, y, argmax), [&] { inner_->max_pool_forward(problem, x, y, argmax); });
}

void TimedBackend::max_pool_backward(const Pool2dProblem& problem, ConstView argmax, ConstView dy,
                                     View dx, GradMode mode) {
  timed("max_pool", bytes(argmax, dy) + stored(dx, mode),
        [&] { inner_->max_pool_backward(problem, argmax, dy, dx, mode); });
}

void TimedBackend::avg_pool_forward(const Pool2dProblem& problem, ConstView x, View y) {
  timed("avg_pool", bytes(x, y), [&] { inner_->avg_pool_forward(problem, x, y); });
}

void TimedBackend::avg_pool_backward(const Pool2dProblem& problem, ConstView dy, View dx,
                                     GradMode mode) {
  timed("avg_pool", bytes(dy) + stored(dx, mode),
        [&] { inner_->avg_pool_backward(problem, dy, dx, mode); });
}

void TimedBackend::adaptive_avg_pool_forward(ConstView x, View y) {
  timed("adaptive_avg_pool", bytes(x, y), [&] { inner_->adaptive_avg_pool_forward(x, y); });
}

void TimedBackend::adaptive_avg_pool_backward(ConstView dy, View dx, GradMode mode) {
  timed("adaptive_avg_pool", bytes(dy) + stored(dx, mode),
        [&] { inner_->adaptive_avg_pool_backward(dy, dx, mode); });
}

void TimedBackend::softmax_cross_entropy_forward(ConstView logits, ConstView labels,
                                                 double smoothing, View loss, View correct,
                                                 Workspace workspace) {
  timed("softmax_cross_entropy", bytes(logits, labels), [&] {
    inner_->softmax_cross_entropy_forward(logits, labels, smoothing, loss, correct, workspace);
  });
}

void TimedBackend::softmax_cross_entropy_backward(ConstView logits, ConstView labels,
                                                  double smoothing, ConstView dloss, View dlogits,
                                                  GradMode mode) {
  timed("softmax_cross_entropy", bytes(logits, labels) + stored(dlogits, mode), [&] {
    inner_->softmax_cross_entropy_backward(logits, labels, smoothing, dloss, dlogits, mode);
  });
}

void TimedBackend::softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels,
                                                          double smoothing, View loss, View correct,
                                                          View dlogits, Workspace workspace) {
  timed("softmax_cross_entropy", bytes(logits, labels, dlogits), [&] {
    inner_->softmax_cross_entropy_forward_backward(logits, labels, smoothing, loss, correct,
                                                   dlogits, workspace);
  });
}

void TimedBackend::sgd(const SgdStep& step, std::span<const SgdParameter> parameters) {
  std::int64_t moved = 0;
  for (const SgdParameter& p : parameters)
    moved += bytes(p.w, p.w, p.grad, p.momentum) + (step.first ? 0 : bytes(p.momentum));
  timed("sgd", moved, [&] { inner_->sgd(step, parameters); });
}

void TimedBackend::adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) {
  std::int64_t moved = 0;
  for (const AdamWParameter& p : parameters) moved += bytes(p.w, p.w, p.grad, p.m, p.m, p.v, p.v);
  timed("adamw", moved, [&] { inner_->adamw(step, parameters); });
}

void TimedBackend::gradients_finite(std::span<const ConstView> gradients, View flag) {
  timed("gradients_finite", bytes_of_all(gradients),
        [&] { inner_->gradients_finite(gradients, flag); });
}

void TimedBackend::gradient_norm(std::span<const View> gradients, View norm, Workspace workspace) {
  timed("gradient_norm", bytes_of_all(gradients),
        [&] { inner_->gradient_norm(gradients, norm, workspace); });
}

void TimedBackend::clip_gradients(std::span<const View> gradients, double max_norm,
                                  ConstView norm) {
  timed("clip_gradients", 2 * bytes_of_all(gradients),
        [&] { inner_->clip_gradients(gradients, max_norm, norm); });
}

}  // namespace nf::bench
