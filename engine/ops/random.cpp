#include "engine/ops/random.h"

#include <cmath>

#include "engine/ops/common.h"

namespace nf {
namespace {

constexpr std::string_view kUniform = "uniform";
constexpr std::string_view kNormal = "normal";

bool finite_in_f32(double value) { return std::isfinite(static_cast<float>(value)); }

}  // namespace

void fill_uniform(Tensor& y, double low, double high, RandomAddress at) {
  const OpScope scope(kUniform);
  detail::check_floating(kUniform, "output", y);
  NF_CHECK(finite_in_f32(low) && finite_in_f32(high) && low <= high && finite_in_f32(high - low),
           "uniform: low must not be above high, both finite, got {} to {}", low, high);
  y.backend().fill_uniform(at, low, high, y.mutable_view());
}

void fill_normal(Tensor& y, double mean, double stddev, RandomAddress at) {
  const OpScope scope(kNormal);
  detail::check_floating(kNormal, "output", y);
  NF_CHECK(finite_in_f32(mean) && finite_in_f32(stddev) && stddev >= 0,
           "normal: mean must be finite and the standard deviation not negative, got {} and {}",
           mean, stddev);
  y.backend().fill_normal(at, mean, stddev, y.mutable_view());
}

Tensor uniform(const ContextPtr& context, const Shape& shape, double low, double high,
               RandomAddress at, DType dtype, Category category) {
  const OpScope scope(kUniform);
  Tensor y = Tensor::empty(context, shape, dtype, category);
  fill_uniform(y, low, high, at);
  return y;
}

Tensor normal(const ContextPtr& context, const Shape& shape, double mean, double stddev,
              RandomAddress at, DType dtype, Category category) {
  const OpScope scope(kNormal);
  Tensor y = Tensor::empty(context, shape, dtype, category);
  fill_normal(y, mean, stddev, at);
  return y;
}

}  // namespace nf
