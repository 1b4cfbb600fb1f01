#include "engine/ops/cast.h"

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kCast = "cast";

bool castable(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::f16 || dtype == DType::bf16;
}

Tensor cast_to(const Tensor& x, DType dtype, Category category) {
  Tensor y = Tensor::empty(x.context(), x.shape(), dtype, category);
  x.backend().cast(x.view(), y.mutable_view());
  return y;
}

class CastNode : public Node {
 public:
  explicit CastNode(DType from) : Node(kCast), from_(from) {}

  void backward(Tensor dy, Gradients& gradients) override {
    Tensor dx = cast_to(dy, from_, Category::activation_gradient);
    dy = Tensor();
    gradients.give(0, std::move(dx));
  }

 private:
  DType from_;
};

}  // namespace

Tensor cast(Tape* tape, const Tensor& x, DType dtype) {
  const OpScope scope(kCast);
  NF_CHECK(static_cast<bool>(x), "cast: the input is an empty tensor");
  NF_CHECK(castable(x.dtype()) && castable(dtype),
           "cast: from and to f32, f64, f16 and bf16 only, got {} to {}", to_string(x.dtype()),
           to_string(dtype));
  if (x.dtype() == dtype) return x;
  Tensor y = cast_to(x, dtype, Category::activation);
  if (Tape::wanted(tape, {&x})) tape->record(std::make_unique<CastNode>(x.dtype()), {&x}, y);
  return y;
}

}  // namespace nf
