#include "engine/ops/pool2d.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kMax = "max_pool", kAverage = "avg_pool",
                           kAdaptive = "adaptive_avg_pool";
// Windows up to this size have their maximum's index stored in one byte.
constexpr std::int64_t kByteWindow = 256;

class MaxPoolNode : public Node {
 public:
  MaxPoolNode(const Pool2dProblem& problem, const Tensor& argmax) : Node(kMax), problem_(problem) {
    save(argmax);
  }

  void backward(Tensor dy, Gradients& gradients) override {
    auto [dx, mode] = gradients.slot(0);
    dy.backend().max_pool_backward(problem_, saved_tensor(0).view(), dy.view(), dx.mutable_view(),
                                   mode);
  }

 private:
  Pool2dProblem problem_;
};

class AvgPoolNode : public Node {
 public:
  explicit AvgPoolNode(const Pool2dProblem& problem) : Node(kAverage), problem_(problem) {}

  void backward(Tensor dy, Gradients& gradients) override {
    auto [dx, mode] = gradients.slot(0);
    dy.backend().avg_pool_backward(problem_, dy.view(), dx.mutable_view(), mode);
  }

 private:
  Pool2dProblem problem_;
};

class AdaptiveAvgPoolNode : public Node {
 public:
  AdaptiveAvgPoolNode() : Node(kAdaptive) {}

  void backward(Tensor dy, Gradients& gradients) override {
    auto [dx, mode] = gradients.slot(0);
    dy.backend().adaptive_avg_pool_backward(dy.view(), dx.mutable_view(), mode);
  }
};

Pool2dProblem pool2d_problem(std::string_view op, const Tensor& x, const Pool2dOptions& options) {
  detail::check_floating(op, "input", x);
  const Shape& shape = x.shape();
  detail::check_images(op, shape);
  NF_CHECK(options.kernel >= 1 && options.kernel <= detail::kMaxStep,
           "{}: kernel must be 1 to {}, got {} (input {})", op, detail::kMaxStep, options.kernel,
           shape.str());
  NF_CHECK(options.stride >= 0 && options.stride <= detail::kMaxStep,
           "{}: stride must be 0 (the kernel's size) to {}, got {} (input {})", op,
           detail::kMaxStep, options.stride, shape.str());
  NF_CHECK(options.padding >= 0 && 2 * options.padding <= options.kernel,
           "{}: padding must be 0 to half of the kernel {}, got {} (input {})", op, options.kernel,
           options.padding, shape.str());
  const Pool2dProblem problem{.n = shape[0],
                              .h = shape[1],
                              .w = shape[2],
                              .c = shape[3],
                              .kernel = options.kernel,
                              .stride = options.stride == 0 ? options.kernel : options.stride,
                              .padding = options.padding,
                              .count_include_pad = options.count_include_pad};
  NF_CHECK(problem.kernel <= problem.h + 2 * problem.padding &&
               problem.kernel <= problem.w + 2 * problem.padding,
           "{}: a {}x{} window does not fit {}x{} pixels padded by {} (input {})", op,
           problem.kernel, problem.kernel, problem.h, problem.w, problem.padding, shape.str());
  return problem;
}

Shape output_shape(const Pool2dProblem& problem) {
  return {problem.n, problem.out_h(), problem.out_w(), problem.c};
}

}  // namespace

Tensor max_pool(Tape* tape, const Tensor& x, const Pool2dOptions& options) {
  const OpScope scope(kMax);
  const Pool2dProblem problem = pool2d_problem(kMax, x, options);
  const Shape shape = output_shape(problem);
  Tensor y = Tensor::empty(x.context(), shape, x.dtype(), Category::activation);
  if (!Tape::wanted(tape, {&x})) {
    x.backend().max_pool_forward(problem, x.view(), y.mutable_view(), View{});
    return y;
  }
  const DType index = problem.kernel * problem.kernel <= kByteWindow ? DType::u8 : DType::i32;
  Tensor argmax = Tensor::empty(x.context(), shape, index, Category::activation);
  x.backend().max_pool_forward(problem, x.view(), y.mutable_view(), argmax.mutable_view());
  tape->record(std::make_unique<MaxPoolNode>(problem, argmax), {&x}, y);
  return y;
}

Tensor avg_pool(Tape* tape, const Tensor& x, const Pool2dOptions& options) {
  const OpScope scope(kAverage);
  const Pool2dProblem problem = pool2d_problem(kAverage, x, options);
  Tensor y = Tensor::empty(x.context(), output_shape(problem), x.dtype(), Category::activation);
  x.backend().avg_pool_forward(problem, x.view(), y.mutable_view());
  if (Tape::wanted(tape, {&x})) tape->record(std::make_unique<AvgPoolNode>(problem), {&x}, y);
  return y;
}

Tensor adaptive_avg_pool(Tape* tape, const Tensor& x, std::int64_t out_h, std::int64_t out_w) {
  const OpScope scope(kAdaptive);
  detail::check_floating(kAdaptive, "input", x);
  const Shape& shape = x.shape();
  detail::check_images(kAdaptive, shape);
  NF_CHECK(out_h >= 1 && out_w >= 1,
           "adaptive_avg_pool: the output must have at least 1x1 pixels, got {}x{} (input {})",
           out_h, out_w, shape.str());
  if (out_h == shape[1] && out_w == shape[2]) return x;
  Tensor y = Tensor::empty(x.context(), {shape[0], out_h, out_w, shape[3]}, x.dtype(),
                           Category::activation);
  x.backend().adaptive_avg_pool_forward(x.view(), y.mutable_view());
  if (Tape::wanted(tape, {&x})) tape->record(std::make_unique<AdaptiveAvgPoolNode>(), {&x}, y);
  return y;
}

}  // namespace nf
