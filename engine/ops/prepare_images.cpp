#include "engine/ops/prepare_images.h"

#include <limits>
#include <utility>

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kName = "prepare_images";
static_assert(sizeof(ImageWindow) == 3 * sizeof(std::int32_t));

void check_operand(std::string_view name, const Tensor& tensor, DType dtype, const Shape& wanted) {
  NF_CHECK(tensor.dtype() == dtype && tensor.shape() == wanted, "{}: {} must be {} {}, got {} {}",
           kName, name, to_string(dtype), wanted.str(), to_string(tensor.dtype()),
           tensor.shape().str());
}

}  // namespace

void prepare_images(const Tensor& pixels, const Tensor& windows, const Tensor& tables,
                    Tensor& out) {
  const OpScope scope(kName);
  NF_CHECK(static_cast<bool>(pixels), "{}: the input is an empty tensor", kName);
  for (const auto& [name, tensor] :
       {std::pair{"windows", &windows}, {"tables", &tables}, {"output", &std::as_const(out)}})
    detail::check_together(kName, name, *tensor, pixels);
  detail::check_images(kName, pixels.shape());
  detail::check_images(kName, out.shape());
  const std::int64_t images = pixels.dim(0), channels = pixels.dim(3);
  check_operand("input", pixels, DType::u8, pixels.shape());
  check_operand("windows", windows, DType::i32, {images, 3});
  check_operand("output", out, DType::f32, {images, out.dim(1), out.dim(2), channels});
  const bool shared = tables.shape().rank() == 2 && tables.dim(0) == 1;
  check_operand("tables", tables, DType::f32, {shared ? 1 : channels, 256});
  for (const Shape& shape : {pixels.shape(), out.shape()})
    NF_CHECK(shape.sample().numel() <= std::numeric_limits<std::int32_t>::max(),
             "{}: an image of {} has 2^31 elements or more", kName, shape.sample().str());
  out.backend().prepare_images(pixels.view(), windows.view(), tables.view(), out.mutable_view());
}

}  // namespace nf
