#include "engine/ops/reduce.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kSum = "sum";
constexpr std::string_view kMean = "mean";
constexpr std::string_view kReduceMin = "min";
constexpr std::string_view kReduceMax = "max";
constexpr std::string_view kSumOfSquares = "sum_of_squares";
constexpr std::string_view kAllFinite = "all_finite";

class SumNode : public Node {
 public:
  SumNode(std::string_view name, double factor) : Node(name), factor_(factor) {}

  void backward(Tensor dy, Gradients& gradients) override {
    auto [dx, mode] = gradients.slot(0);
    dy.backend().spread_rows(factor_, dy.view(), dx.mutable_view(), mode);
  }

 private:
  double factor_;
};

Tensor reduce(std::string_view op, Reduction reduction, const Tensor& x, Per per) {
  detail::check_floating(op, "input", x);
  NF_CHECK(x.numel() > 0, "{}: the input must have elements, got {}", op, x.shape().str());
  NF_CHECK(per == Per::tensor || x.shape().rank() > 0,
           "{}: the input must have a dimension of rows, got {}", op, x.shape().str());
  const std::int64_t rows = per == Per::row ? x.dim(0) : 1, columns = x.numel() / rows;
  Backend& backend = x.backend();
  Tensor y =
      Tensor::empty(x.context(), {rows}, detail::statistics_dtype(x.dtype()), Category::activation);
  const detail::Scratch scratch(x.context(), backend.reduce_workspace(rows, columns));
  backend.reduce(reduction, x.view(), y.mutable_view(), scratch);
  return y;
}

/// `factor` is that of each element in its row's result.
Tensor recorded_sum(std::string_view op, Reduction reduction, Tape* tape, const Tensor& x,
                    Per per) {
  const OpScope scope(op);
  Tensor y = reduce(op, reduction, x, per);
  if (Tape::wanted(tape, {&x})) {
    const double columns = static_cast<double>(x.numel() / y.numel());
    const double factor = reduction == Reduction::mean ? 1 / columns : 1;
    tape->record(std::make_unique<SumNode>(op, factor), {&x}, y);
  }
  return y;
}

Tensor unrecorded(std::string_view op, Reduction reduction, const Tensor& x, Per per) {
  const OpScope scope(op);
  NF_CHECK(!x.requires_grad() || x.is_leaf(), "{}: no gradient flows through it; detach {} first",
           op, x.shape().str());
  return reduce(op, reduction, x, per);
}

}  // namespace

Tensor sum(Tape* tape, const Tensor& x, Per per) {
  return recorded_sum(kSum, Reduction::sum, tape, x, per);
}
Tensor mean(Tape* tape, const Tensor& x, Per per) {
  return recorded_sum(kMean, Reduction::mean, tape, x, per);
}
Tensor min(const Tensor& x, Per per) { return unrecorded(kReduceMin, Reduction::min, x, per); }
Tensor max(const Tensor& x, Per per) { return unrecorded(kReduceMax, Reduction::max, x, per); }
Tensor sum_of_squares(const Tensor& x, Per per) {
  return unrecorded(kSumOfSquares, Reduction::sum_of_squares, x, per);
}

bool all_finite(const Tensor& x) {
  const OpScope scope(kAllFinite);
  detail::check_floating(kAllFinite, "input", x);
  Tensor flag = Tensor::full(x.context(), {1}, 1, DType::i32, Category::workspace);
  x.backend().all_finite(x.view(), flag.mutable_view());
  return x.context()->is_meta() || flag.item<std::int32_t>() != 0;
}

}  // namespace nf
