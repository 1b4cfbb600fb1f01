#include "nn/layers.h"

#include <utility>

#include "engine/ops/dropout.h"
#include "engine/ops/linear.h"
#include "engine/ops/reshape.h"
#include "engine/random.h"

namespace nf::nn {
namespace {

void check_materialized(const Parameter& parameter) {
  NF_CHECK(parameter.value, "{}: is on no device; materialize comes before forward",
           parameter.name);
}

Parameter make_bias(const std::string& name, std::int64_t size, const Initializer& init) {
  return {.name = name + ".bias", .shape = {size}, .init = init, .decay = false};
}

std::int64_t window_extent(std::int64_t extent, std::int64_t kernel, std::int64_t stride,
                           std::int64_t padding) {
  return (extent + 2 * padding - kernel) / stride + 1;
}

/// (N, H, W, C) with a map that has a place for the window.
void check_map(const std::string& name, const Shape& x, std::int64_t kernel, std::int64_t padding) {
  NF_CHECK(x.rank() == 4, "{}: input must be (N, H, W, C), got {}", name, x.str());
  NF_CHECK(x[1] + 2 * padding >= kernel && x[2] + 2 * padding >= kernel,
           "{}: a window of {} with padding {} does not fit in input {}", name, kernel, padding,
           x.str());
}

Shape pooled_shape(const std::string& name, const Shape& x, const Pool2dOptions& options) {
  NF_CHECK(options.kernel >= 1 && options.stride >= 0 && options.padding >= 0 &&
               options.padding <= options.kernel / 2,
           "{}: kernel {}, stride {}, padding {} must be >= 1, >= 0 and at most half the kernel",
           name, options.kernel, options.stride, options.padding);
  check_map(name, x, options.kernel, options.padding);
  const std::int64_t stride = options.stride == 0 ? options.kernel : options.stride;
  return {x[0], window_extent(x[1], options.kernel, stride, options.padding),
          window_extent(x[2], options.kernel, stride, options.padding), x[3]};
}

ConvOptions conv_part(std::int64_t kernel, const ConvBnOptions& options) {
  return {.stride = options.stride,
          .padding = options.padding < 0 ? kernel / 2 : options.padding,
          .groups = options.groups,
          .bias = false};
}

}  // namespace

Conv2d::Conv2d(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel,
               const ConvOptions& options)
    : options_(options) {
  NF_CHECK(in >= 1 && out >= 1 && kernel >= 1,
           "{}: channels and kernel must be at least 1, got {} to {}, kernel {}", name, in, out,
           kernel);
  NF_CHECK(options.stride >= 1 && options.padding >= 0 && options.groups >= 1,
           "{}: stride {} and groups {} must be at least 1, padding {} at least 0", name,
           options.stride, options.groups, options.padding);
  NF_CHECK(in % options.groups == 0 && out % options.groups == 0,
           "{}: {} groups must divide the channels, {} to {}", name, options.groups, in, out);
  weight_ = {.name = name + ".weight",
             .shape = {out, kernel, kernel, in / options.groups},
             .init = kaiming_normal_fan_out(out, kernel)};
  if (options.bias) bias_ = make_bias(name, out, constant(0));
}

Tensor Conv2d::forward(const Pass& pass, const Tensor& x) {
  check_materialized(weight_);
  return conv2d(pass.tape, x, weight_.value, bias_ ? bias_->value : Tensor(), conv_options());
}

Tensor Conv2d::forward_fused(const Tensor& x, const Tensor& bias, const Tensor& residual,
                             Activation activation) {
  check_materialized(weight_);
  const ConstantWeights weights{weight_.value, weight_.layout};
  return conv2d_fused(x, weights, bias, residual, activation, conv_options());
}

Conv2dOptions Conv2d::conv_options() const {
  return {.stride = options_.stride, .padding = options_.padding, .groups = options_.groups};
}

Shape Conv2d::output_shape(const Shape& x) const {
  const std::int64_t kernel = weight_.shape[1];
  check_map(weight_.name, x, kernel, options_.padding);
  const std::int64_t in = weight_.shape[3] * options_.groups;
  NF_CHECK(x[3] == in, "{}: input has {} channels, weight expects {} (input {})", weight_.name,
           x[3], in, x.str());
  return {x[0], window_extent(x[1], kernel, options_.stride, options_.padding),
          window_extent(x[2], kernel, options_.stride, options_.padding), weight_.shape[0]};
}

std::int64_t Conv2d::flops(const Shape& x) const {
  return 2 * output_shape(x).numel() * weight_.shape.sample().numel();
}

void Conv2d::visit(const std::function<void(Parameter&)>& visitor) {
  visitor(weight_);
  if (bias_) visitor(*bias_);
}

Linear::Linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias) {
  NF_CHECK(in >= 1 && out >= 1, "{}: sizes must be at least 1, got {} to {}", name, in, out);
  weight_ = {.name = name + ".weight", .shape = {out, in}, .init = uniform_fan_in(in)};
  if (bias) bias_ = make_bias(name, out, uniform_fan_in(in));
}

Tensor Linear::forward(const Pass& pass, const Tensor& x) {
  check_materialized(weight_);
  return linear(pass.tape, x, weight_.value, bias_ ? bias_->value : Tensor());
}

Shape Linear::output_shape(const Shape& x) const {
  NF_CHECK(x.rank() == 2 && x[1] == weight_.shape[1], "{}: input must be (N, {}), got {}",
           weight_.name, weight_.shape[1], x.str());
  return {x[0], weight_.shape[0]};
}

std::int64_t Linear::flops(const Shape& x) const {
  return 2 * output_shape(x).numel() * weight_.shape[1];
}

void Linear::visit(const std::function<void(Parameter&)>& visitor) {
  visitor(weight_);
  if (bias_) visitor(*bias_);
}

BatchNorm::BatchNorm(const std::string& name, std::int64_t channels,
                     const BatchNormLayerOptions& options)
    : options_(options) {
  NF_CHECK(channels >= 1, "{}: channels must be at least 1, got {}", name, channels);
  const Shape shape{channels};
  weight_ = {.name = name + ".weight", .shape = shape, .init = constant(1), .decay = false};
  bias_ = make_bias(name, channels, constant(0));
  running_mean_ = {.name = name + ".running_mean",
                   .shape = shape,
                   .init = constant(0),
                   .buffer = true,
                   .decay = false};
  running_var_ = {.name = name + ".running_var",
                  .shape = shape,
                  .init = constant(1),
                  .buffer = true,
                  .decay = false};
}

Tensor BatchNorm::forward(const Pass& pass, const Tensor& x, const Tensor& residual) {
  check_materialized(weight_);
  BatchNormState state{weight_.value, bias_.value, running_mean_.value, running_var_.value};
  // With a momentum of 0 the running statistics keep their values.
  return batch_norm(pass.tape, x, residual, state,
                    {.training = pass.training,
                     .eps = options_.eps,
                     .momentum = pass.update_statistics ? options_.momentum : 0.0,
                     .activation = options_.activation});
}

Shape BatchNorm::output_shape(const Shape& x) const {
  NF_CHECK(x.rank() >= 2 && x[-1] == weight_.shape[0],
           "{}: input must have {} channels in its last dimension, got {}", weight_.name,
           weight_.shape[0], x.str());
  return x;
}

void BatchNorm::fold_into(Parameter& weight) {
  if (folded()) return;
  check_materialized(weight_);
  check_materialized(weight);
  BatchNormState state{weight_.value, bias_.value, running_mean_.value, running_var_.value};
  batch_norm_fold(weight.value, {}, state, options_.eps);
  weight.folded = bias_.folded = true;
  for (Parameter* parameter : {&weight_, &running_mean_, &running_var_})
    parameter->value = Tensor();
}

void BatchNorm::visit(const std::function<void(Parameter&)>& visitor) {
  if (folded()) return visitor(bias_);
  visitor(weight_);
  visitor(bias_);
  visitor(running_mean_);
  visitor(running_var_);
}

ConvBnAct::ConvBnAct(const std::string& conv_name, const std::string& bn_name, std::int64_t in,
                     std::int64_t out, std::int64_t kernel, const ConvBnOptions& options)
    : conv_(conv_name, in, out, kernel, conv_part(kernel, options)),
      bn_(bn_name, out, {.activation = options.activation}) {}

Tensor ConvBnAct::forward(const Pass& pass, const Tensor& x, const Tensor& residual) {
  if (!bn_.folded()) return bn_.forward(pass, conv_.forward(pass, x), residual);
  NF_CHECK(!pass.training && pass.tape == nullptr,
           "{}: has a batch norm folded into it, which is for inference; release comes before "
           "training",
           conv_.weight().name);
  return conv_.forward_fused(x, bn_.bias(), residual, bn_.activation());
}

void ConvBnAct::fold_batch_norms() { bn_.fold_into(conv_.weight()); }

void ConvBnAct::visit(const std::function<void(Parameter&)>& visitor) {
  conv_.visit(visitor);
  bn_.visit(visitor);
}

Tensor MaxPool::forward(const Pass& pass, const Tensor& x) {
  return max_pool(pass.tape, x, options_);
}

Shape MaxPool::output_shape(const Shape& x) const { return pooled_shape("max_pool", x, options_); }

Tensor AvgPool::forward(const Pass& pass, const Tensor& x) {
  return avg_pool(pass.tape, x, options_);
}

Shape AvgPool::output_shape(const Shape& x) const { return pooled_shape("avg_pool", x, options_); }

AdaptiveAvgPool::AdaptiveAvgPool(std::int64_t out_h, std::int64_t out_w)
    : out_h_(out_h), out_w_(out_w) {
  NF_CHECK(out_h >= 1 && out_w >= 1, "adaptive_avg_pool: output must be at least 1x1, got {}x{}",
           out_h, out_w);
}

Tensor AdaptiveAvgPool::forward(const Pass& pass, const Tensor& x) {
  return adaptive_avg_pool(pass.tape, x, out_h_, out_w_);
}

Shape AdaptiveAvgPool::output_shape(const Shape& x) const {
  check_map("adaptive_avg_pool", x, 1, 0);
  return {x[0], out_h_, out_w_, x[3]};
}

Dropout::Dropout(std::string name, double p) : name_(std::move(name)), p_(p) {
  NF_CHECK(p >= 0 && p < 1, "{}: dropout must be in [0, 1), got {}", name_, p);
}

Tensor Dropout::forward(const Pass& pass, const Tensor& x) {
  if (!pass.training) return x;
  const std::uint64_t name = hash_name(name_);
  const PhiloxKey key = pass.stored_dropout_key != nullptr
                            ? stored_random_key(pass.stored_dropout_key, Purpose::dropout, name)
                            : PhiloxKey(random_key(pass.dropout_key, Purpose::dropout, name));
  return dropout(pass.tape, x, p_, key);
}

Tensor Flatten::forward(const Pass& pass, const Tensor& x) { return flatten(pass.tape, x); }

Shape Flatten::output_shape(const Shape& x) const {
  NF_CHECK(x.rank() >= 1, "flatten: input must have a batch dimension, got {}", x.str());
  return {x[0], x.sample().numel()};
}

Sequential::Sequential(std::vector<std::unique_ptr<Module>> layers) {
  for (auto& layer : layers) add(std::move(layer));
}

Sequential& Sequential::add(std::unique_ptr<Module> layer) {
  NF_CHECK(layer != nullptr, "sequential: layer {} is null", layers_.size());
  layers_.push_back(std::move(layer));
  return *this;
}

Tensor Sequential::forward(const Pass& pass, const Tensor& x) {
  Tensor y = x;
  for (const auto& layer : layers_) y = layer->forward(pass, y);
  return y;
}

Shape Sequential::output_shape(const Shape& x) const {
  Shape shape = x;
  for (const auto& layer : layers_) shape = layer->output_shape(shape);
  return shape;
}

std::int64_t Sequential::flops(const Shape& x) const {
  Shape shape = x;
  std::int64_t sum = 0;
  for (const auto& layer : layers_) {
    sum += layer->flops(shape);
    shape = layer->output_shape(shape);
  }
  return sum;
}

std::int64_t Sequential::first_flops(const Shape& x) const {
  Shape shape = x;
  for (const auto& layer : layers_) {
    if (const std::int64_t first = layer->first_flops(shape); first > 0) return first;
    shape = layer->output_shape(shape);
  }
  return 0;
}

void Sequential::visit(const std::function<void(Parameter&)>& visitor) {
  for (const auto& layer : layers_) layer->visit(visitor);
}

void Sequential::fold_batch_norms() {
  for (const auto& layer : layers_) layer->fold_batch_norms();
}

}  // namespace nf::nn
