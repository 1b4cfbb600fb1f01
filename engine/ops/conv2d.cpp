#include "engine/ops/conv2d.h"

#include <functional>

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kConv2d = "conv2d";

class Conv2dNode : public Node {
 public:
  Conv2dNode(const Conv2dProblem& problem, const Tensor& x, const Tensor& w)
      : Node(kConv2d), problem_(problem) {
    // Each is read only for the gradient of the other.
    save(w.requires_grad() ? x : Tensor());
    save(x.requires_grad() ? w : Tensor());
  }

  void backward(Tensor dy, Gradients& gradients) override {
    const ContextPtr& context = dy.context();
    Backend& backend = dy.backend();
    const bool weight_wanted = gradients.wanted(kWeight);
    const std::int64_t parts = weight_wanted ? backend.conv2d_weight_parts(problem_) : 1;
    if (weight_wanted && parts == 1) {
      auto [dw, mode] = gradients.slot(kWeight);
      const detail::Scratch scratch(
          context, backend.conv2d_workspace(problem_, Pass::backward_weight, mode));
      backend.conv2d_backward_weight(problem_, saved_tensor(0).view(), dy.view(), dw.mutable_view(),
                                     mode, scratch);
    }
    // The largest thing held goes before the input's gradient is asked for.
    if (parts == 1) release(0);
    if (gradients.wanted(kBias)) {
      auto [db, mode] = gradients.slot(kBias);
      const std::int64_t channels = db.numel();
      const detail::Scratch scratch(
          context, backend.bias_backward_workspace(dy.numel() / channels, channels));
      backend.bias_backward(dy.view(), db.mutable_view(), mode, scratch);
    }
    if (gradients.wanted(kInput)) {
      auto [dx, mode] = gradients.slot(kInput);
      const detail::Scratch scratch(context,
                                    backend.conv2d_workspace(problem_, Pass::backward_input, mode));
      backend.conv2d_backward_input(problem_, dy.view(), saved_tensor(1).view(), dx.mutable_view(),
                                    mode, scratch);
    }
    // Now that nothing reads the filters any more.
    if (parts > 1) weight_by_parts(parts, dy, gradients);
  }

 private:
  // So many filters at a time, for which their channels of dy are gathered.
  void weight_by_parts(std::int64_t parts, const Tensor& dy, Gradients& gradients) const {
    const ContextPtr& context = dy.context();
    Backend& backend = dy.backend();
    Conv2dProblem part = problem_;
    part.o /= parts;
    const std::int64_t places = dy.numel() / problem_.o;
    const auto compute = [&](std::int64_t begin, Gradients::Slot slot) {
      Tensor some = Tensor::empty(context, {part.n, part.out_h(), part.out_w(), part.o}, dy.dtype(),
                                  Category::workspace);
      backend.copy_columns({some.mutable_view().data, dy.dtype(), {places, part.o}},
                           {dy.view().data, dy.dtype(), {places, problem_.o}}, begin);
      const detail::Scratch scratch(
          context, backend.conv2d_workspace(part, Pass::backward_weight, slot.mode));
      backend.conv2d_backward_weight(part, saved_tensor(0).view(), some.view(),
                                     slot.tensor.mutable_view(), slot.mode, scratch);
    };
    gradients.by_rows(kWeight, part.o, std::cref(compute));
  }

  static constexpr std::size_t kInput = 0, kWeight = 1, kBias = 2;

  Conv2dProblem problem_;
};

}  // namespace

Conv2dProblem conv2d_problem(const Shape& x, const Shape& w, DType dtype,
                             const Conv2dOptions& options) {
  detail::check_images(kConv2d, x);
  const auto shapes = [&] { return fmt::format("(input {}, weight {})", x.str(), w.str()); };
  NF_CHECK(w.rank() == 4 && w.numel() > 0,
           "conv2d: weight must be (O, KH, KW, C / groups) with no empty dimension {}", shapes());
  NF_CHECK(options.stride >= 1 && options.stride <= detail::kMaxStep,
           "conv2d: stride must be 1 to {}, got {}", detail::kMaxStep, options.stride);
  NF_CHECK(options.padding >= 0 && options.padding <= detail::kMaxStep,
           "conv2d: padding must be 0 to {}, got {}", detail::kMaxStep, options.padding);
  const std::int64_t groups = options.groups;
  NF_CHECK(groups >= 1 && x[3] % groups == 0 && w[0] % groups == 0,
           "conv2d: {} groups do not divide {} input and {} output channels {}", groups, x[3], w[0],
           shapes());
  NF_CHECK(x[3] / groups == w[3], "conv2d: input has {} channels, weight expects {}{} {}", x[3],
           w[3] * groups, groups == 1 ? "" : fmt::format(" in {} groups", groups), shapes());
  const Conv2dProblem problem{.dtype = dtype,
                              .n = x[0],
                              .h = x[1],
                              .w = x[2],
                              .c = x[3],
                              .o = w[0],
                              .kh = w[1],
                              .kw = w[2],
                              .stride = options.stride,
                              .padding = options.padding,
                              .groups = groups};
  NF_CHECK(problem.kh <= problem.h + 2 * problem.padding &&
               problem.kw <= problem.w + 2 * problem.padding,
           "conv2d: a {}x{} kernel does not fit {}x{} pixels padded by {} {}", problem.kh,
           problem.kw, problem.h, problem.w, problem.padding, shapes());
  return problem;
}

namespace {

Conv2dProblem checked_problem(const Tensor& x, const Tensor& w, const Tensor& bias,
                              const Conv2dOptions& options) {
  detail::check_floating(kConv2d, "input", x);
  detail::check_alike(kConv2d, "weight", w, x);
  const Conv2dProblem problem = conv2d_problem(x.shape(), w.shape(), x.dtype(), options);
  if (bias) detail::check_per_channel(kConv2d, "bias", bias, x, problem.o);
  return problem;
}

Shape output_shape(const Conv2dProblem& problem) {
  return {problem.n, problem.out_h(), problem.out_w(), problem.o};
}

Tensor compute(const Conv2dProblem& problem, const Tensor& x, const Tensor& w, const Tensor& bias,
               const Tensor& residual) {
  Tensor y = Tensor::empty(x.context(), output_shape(problem), x.dtype(), Category::activation);
  const detail::Scratch scratch(
      x.context(), x.backend().conv2d_workspace(problem, Pass::forward, GradMode::overwrite));
  x.backend().conv2d_forward(problem, x.view(), w.view(), bias.view(), residual.view(),
                             y.mutable_view(), scratch);
  return y;
}

Conv2dProblem fused_problem(const Tensor& x, const Tensor& w, const Tensor& bias,
                            const Tensor& residual, Activation activation,
                            const Conv2dOptions& options) {
  Conv2dProblem problem = checked_problem(x, w, bias, options);
  NF_CHECK(static_cast<bool>(bias), "conv2d: with something behind it there must be a bias");
  if (residual) {
    detail::check_alike(kConv2d, "residual", residual, x);
    NF_CHECK(residual.shape() == output_shape(problem),
             "conv2d: residual must have the output's shape {}, got {}",
             output_shape(problem).str(), residual.shape().str());
  }
  problem.activation = activation;
  problem.residual = static_cast<bool>(residual);
  return problem;
}

void lay_out(const Conv2dProblem& problem, ConstantWeights w) {
  const ContextPtr& context = w.values.context();
  Backend& backend = context->backend();
  std::int64_t wanted = backend.conv2d_weight_layout(problem);
  // A padded layout has no room where the weights are, and elsewhere they would leave holes.
  if (backend.conv2d_weight_bytes(problem, wanted) != w.values.bytes()) wanted = 0;
  if (wanted == w.layout) return;
  Tensor values = Tensor::empty(context, w.values.shape(), w.values.dtype(), Category::workspace);
  const detail::Scratch scratch(context, backend.conv2d_reorder_workspace(problem, wanted));
  backend.conv2d_reorder_weights(problem, wanted, w.values.view(), values.mutable_view(), scratch);
  backend.copy(w.values.mutable_view(), values.view());
  w.layout = wanted;
}

}  // namespace

Tensor conv2d_fused(const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                    Activation activation, const Conv2dOptions& options) {
  const OpScope scope(kConv2d);
  const Conv2dProblem problem = fused_problem(x, w, bias, residual, activation, options);
  return compute(problem, x, w, bias, residual);
}

Tensor conv2d_fused(const Tensor& x, ConstantWeights w, const Tensor& bias, const Tensor& residual,
                    Activation activation, const Conv2dOptions& options) {
  const OpScope scope(kConv2d);
  Conv2dProblem problem = fused_problem(x, w.values, bias, residual, activation, options);
  problem.weight_layout = w.layout;
  lay_out(problem, w);
  problem.weight_layout = w.layout;
  return compute(problem, x, w.values, bias, residual);
}

Tensor conv2d(Tape* tape, const Tensor& x, const Tensor& w, const Tensor& bias,
              const Conv2dOptions& options) {
  const OpScope scope(kConv2d);
  const Conv2dProblem problem = checked_problem(x, w, bias, options);
  const Tensor y = compute(problem, x, w, bias, {});
  if (Tape::wanted(tape, {&x, &w, &bias}))
    tape->record(std::make_unique<Conv2dNode>(problem, x, w), {&x, &w, &bias}, y);
  return y;
}

}  // namespace nf
