#include "engine/ops/batch_norm.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kBatchNorm = "batch_norm";

/// The gradient of a per-channel parameter: where the primitive writes it and where it belongs.
struct ParameterGradient {
  Tensor target;  // what the primitive writes
  Tensor addend;  // what target is then added to; empty where the primitive did so itself
};

class BatchNormNode : public Node {
 public:
  BatchNormNode(const BatchNormProblem& problem, const Tensor& x, const Tensor& y,
                const Tensor& gamma, const Tensor& beta, const Tensor& mean, const Tensor& invstd)
      : Node(kBatchNorm), problem_(problem) {
    for (const Tensor& tensor : {x, y, gamma, beta, mean, invstd}) save(tensor);
  }

  void backward(Tensor dy, Gradients& gradients) override {
    const ContextPtr context = dy.context();
    Backend& backend = dy.backend();
    const bool masked = problem_.activation != Activation::none;
    const bool residual_wanted = gradients.wanted(kResidual);

    // Without an activation the residual's gradient is dy itself, which dx then must not overwrite.
    const bool share_dy = residual_wanted && !masked;
    const bool in_place = dy.unique() && !share_dy;
    Tensor dx = in_place ? dy : like(dy);
    Tensor dresidual = residual_wanted && masked ? like(dy) : Tensor();

    const Gradients::Slot gamma_slot = parameter_slot(gradients, kGamma, dy);
    const Gradients::Slot beta_slot = parameter_slot(gradients, kBeta, dy);
    // One mode serves both: where they differ, the one that accumulates takes a detour.
    const GradMode mode = gamma_slot.mode == beta_slot.mode ? gamma_slot.mode : GradMode::overwrite;
    ParameterGradient dgamma = parameter_gradient(gamma_slot, mode);
    ParameterGradient dbeta = parameter_gradient(beta_slot, mode);
    {
      const detail::Scratch scratch(context, backend.batch_norm_workspace(problem_));
      backend.batch_norm_backward(
          problem_, saved_tensor(kSavedX).view(), saved_tensor(kSavedY).view(), dy.view(),
          saved_tensor(kSavedGamma).view(), saved_tensor(kSavedBeta).view(),
          saved_tensor(kSavedMean).view(), saved_tensor(kSavedInvstd).view(), dx.mutable_view(),
          dresidual.mutable_view(), dgamma.target.mutable_view(), dbeta.target.mutable_view(), mode,
          scratch);
    }
    release(kSavedX);  // handing gradients over may ask for memory
    release(kSavedY);
    for (ParameterGradient* gradient : {&dgamma, &dbeta})
      if (gradient->addend)
        backend.axpy(1.0, gradient->target.view(), gradient->addend.mutable_view());

    if (share_dy)
      gradients.give(kResidual, std::move(dy));
    else
      dy = Tensor();
    if (dresidual) gradients.give(kResidual, std::move(dresidual));
    if (gradients.wanted(kInput)) gradients.give(kInput, std::move(dx));
  }

 private:
  static constexpr std::size_t kInput = 0, kResidual = 1, kGamma = 2, kBeta = 3;
  static constexpr std::size_t kSavedX = 0, kSavedY = 1, kSavedGamma = 2, kSavedBeta = 3,
                               kSavedMean = 4, kSavedInvstd = 5;

  static Tensor like(const Tensor& dy) {
    return Tensor::empty(dy.context(), dy.shape(), dy.dtype(), Category::activation_gradient);
  }

  /// The primitive always writes both: what nobody wants goes to scratch memory.
  Gradients::Slot parameter_slot(Gradients& gradients, std::size_t input, const Tensor& dy) const {
    if (gradients.wanted(input)) return gradients.slot(input);
    return {Tensor::empty(dy.context(), {problem_.channels}, detail::statistics_dtype(dy.dtype()),
                          Category::workspace),
            GradMode::overwrite};
  }

  static ParameterGradient parameter_gradient(const Gradients::Slot& slot, GradMode mode) {
    if (slot.mode == mode) return {slot.tensor, {}};
    return {Tensor::empty(slot.tensor.context(), slot.tensor.shape(), slot.tensor.dtype(),
                          Category::workspace),
            slot.tensor};
  }

  BatchNormProblem problem_;
};

BatchNormProblem batch_norm_problem(const Tensor& x, const BatchNormOptions& options) {
  const Shape& shape = x.shape();
  NF_CHECK(shape.rank() >= 2 && shape.numel() > 0,
           "batch_norm: input must be (N, …, C) with no empty dimension, got {}", shape.str());
  NF_CHECK(options.eps > 0, "batch_norm: eps must be positive, got {}", options.eps);
  NF_CHECK(options.momentum >= 0 && options.momentum <= 1,
           "batch_norm: momentum must be 0 to 1, got {}", options.momentum);
  return {.dtype = x.dtype(),
          .rows = shape.numel() / shape[-1],
          .channels = shape[-1],
          .activation = options.activation,
          .eps = options.eps,
          .momentum = options.momentum};
}

}  // namespace

Tensor batch_norm(Tape* tape, const Tensor& x, const Tensor& residual, BatchNormState& state,
                  const BatchNormOptions& options) {
  const OpScope scope(kBatchNorm);
  detail::check_floating(kBatchNorm, "input", x);
  const BatchNormProblem problem = batch_norm_problem(x, options);
  const std::int64_t channels = problem.channels;
  detail::check_statistics(kBatchNorm, "gamma", state.gamma, x, channels);
  detail::check_statistics(kBatchNorm, "beta", state.beta, x, channels);
  detail::check_statistics(kBatchNorm, "running_mean", state.running_mean, x, channels);
  detail::check_statistics(kBatchNorm, "running_var", state.running_var, x, channels);
  if (residual) {
    detail::check_alike(kBatchNorm, "residual", residual, x);
    NF_CHECK(residual.shape() == x.shape(),
             "batch_norm: residual must have the input's shape (input {}, residual {})",
             x.shape().str(), residual.shape().str());
  }
  const bool wanted = Tape::wanted(tape, {&x, &residual, &state.gamma, &state.beta});
  NF_CHECK(options.training || !wanted,
           "batch_norm: evaluation has no gradient, but the tape wants one (input {})",
           x.shape().str());

  const ContextPtr& context = x.context();
  Backend& backend = x.backend();
  Tensor y = Tensor::empty(context, x.shape(), x.dtype(), Category::activation);
  if (!options.training) {
    backend.batch_norm_forward_eval(problem, x.view(), residual.view(), state.gamma.view(),
                                    state.beta.view(), state.running_mean.view(),
                                    state.running_var.view(), y.mutable_view());
    return y;
  }
  const DType statistics = detail::statistics_dtype(x.dtype());
  Tensor mean = Tensor::empty(context, {channels}, statistics, Category::activation);
  Tensor invstd = Tensor::empty(context, {channels}, statistics, Category::activation);
  {
    const detail::Scratch scratch(context, backend.batch_norm_workspace(problem));
    backend.batch_norm_forward_train(problem, x.view(), residual.view(), state.gamma.view(),
                                     state.beta.view(), state.running_mean.mutable_view(),
                                     state.running_var.mutable_view(), y.mutable_view(),
                                     mean.mutable_view(), invstd.mutable_view(), scratch);
  }
  if (wanted) {
    const bool needs_y = residual && options.activation != Activation::none;
    tape->record(std::make_unique<BatchNormNode>(problem, x, needs_y ? y : Tensor(), state.gamma,
                                                 state.beta, mean, invstd),
                 {&x, &residual, &state.gamma, &state.beta}, y);
  }
  return y;
}

void batch_norm_fold(Tensor& w, const Tensor& bias, BatchNormState& state, double eps) {
  constexpr std::string_view op = "batch_norm_fold";
  const OpScope scope(op);
  detail::check_floating(op, "weight", w);
  NF_CHECK(w.dtype() == detail::statistics_dtype(w.dtype()),
           "batch_norm_fold: the weight must be f32 or f64, got {}", to_string(w.dtype()));
  NF_CHECK(w.shape().rank() >= 1 && w.numel() > 0,
           "batch_norm_fold: weight must be (C, …) with no empty dimension, got {}",
           w.shape().str());
  NF_CHECK(eps > 0, "batch_norm_fold: eps must be positive, got {}", eps);
  const std::int64_t channels = w.dim(0);
  if (bias) detail::check_per_channel(op, "bias", bias, w, channels);
  detail::check_per_channel(op, "gamma", state.gamma, w, channels);
  detail::check_per_channel(op, "beta", state.beta, w, channels);
  detail::check_per_channel(op, "running_mean", state.running_mean, w, channels);
  detail::check_per_channel(op, "running_var", state.running_var, w, channels);
  w.backend().batch_norm_fold(eps, state.gamma.view(), state.beta.view(), state.running_mean.view(),
                              state.running_var.view(), w.view(), bias.view(), w.mutable_view(),
                              state.beta.mutable_view());
}

}  // namespace nf
