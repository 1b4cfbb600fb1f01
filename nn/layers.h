// The layers that nets are made of. Images are (N, H, W, C).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/ops/batch_norm.h"
#include "engine/ops/conv2d.h"
#include "engine/ops/pool2d.h"
#include "nn/module.h"

namespace nf::nn {

struct ConvOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;
  bool bias = true;
};

/// NAME.weight (O, K, K, I / groups), NAME.bias (O).
class Conv2d : public Module {
 public:
  /// Throws Error for sizes below 1 or channels that the groups do not divide.
  Conv2d(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel,
         const ConvOptions& options = {});

  Tensor forward(const Pass& pass, const Tensor& x) override;
  /// activation(convolution + bias + residual) without a backward, the bias in place of its own.
  Tensor forward_fused(const Tensor& x, const Tensor& bias, const Tensor& residual,
                       Activation activation);
  Shape output_shape(const Shape& x) const override;
  std::int64_t flops(const Shape& x) const override;
  void visit(const std::function<void(Parameter&)>& visitor) override;

  std::int64_t out_channels() const { return weight_.shape[0]; }
  Parameter& weight() { return weight_; }

 private:
  Conv2dOptions conv_options() const;

  Parameter weight_;
  std::optional<Parameter> bias_;
  ConvOptions options_;
};

/// NAME.weight (O, I), NAME.bias (O). Input (N, I). After a Flatten of (N, H, W, C) the columns run
/// in H, W, C order, where PyTorch's run in C, H, W.
class Linear : public Module {
 public:
  Linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias = true);

  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::int64_t flops(const Shape& x) const override;
  void visit(const std::function<void(Parameter&)>& visitor) override;

 private:
  Parameter weight_;
  std::optional<Parameter> bias_;
};

struct BatchNormLayerOptions {
  Activation activation = Activation::none;
  double eps = 1e-5;
  double momentum = 0.1;
};

/// NAME.weight, NAME.bias, NAME.running_mean, NAME.running_var, each (C); then the activation.
/// PyTorch's num_batches_tracked is neither kept nor needed.
class BatchNorm : public Module {
 public:
  BatchNorm(const std::string& name, std::int64_t channels,
            const BatchNormLayerOptions& options = {});

  Tensor forward(const Pass& pass, const Tensor& x) override { return forward(pass, x, {}); }
  /// The residual, of x's shape or empty, is added before the activation.
  Tensor forward(const Pass& pass, const Tensor& x, const Tensor& residual);
  Shape output_shape(const Shape& x) const override;
  std::int64_t flops(const Shape&) const override { return 0; }
  void visit(const std::function<void(Parameter&)>& visitor) override;

  /// Puts what it does in evaluation into the weights of the convolution before it, which has no
  /// bias: bias() becomes that, and is all that is left.
  void fold_into(Parameter& weight);
  bool folded() const { return bias_.folded; }
  const Tensor& bias() const { return bias_.value; }
  Activation activation() const { return options_.activation; }

 private:
  Parameter weight_, bias_, running_mean_, running_var_;
  BatchNormLayerOptions options_;
};

struct ConvBnOptions {
  std::int64_t stride = 1;
  std::int64_t padding = -1;  ///< -1: kernel / 2, which keeps the map's size at stride 1
  std::int64_t groups = 1;
  Activation activation = Activation::relu;
};

/// Convolution without bias, batch norm, residual where given, activation.
class ConvBnAct : public Module {
 public:
  ConvBnAct(const std::string& conv_name, const std::string& bn_name, std::int64_t in,
            std::int64_t out, std::int64_t kernel, const ConvBnOptions& options = {});

  Tensor forward(const Pass& pass, const Tensor& x) override { return forward(pass, x, {}); }
  /// The residual, of the output's shape or empty, is added before the activation.
  Tensor forward(const Pass& pass, const Tensor& x, const Tensor& residual);
  Shape output_shape(const Shape& x) const override { return conv_.output_shape(x); }
  std::int64_t flops(const Shape& x) const override { return conv_.flops(x); }
  void visit(const std::function<void(Parameter&)>& visitor) override;
  void fold_batch_norms() override;

 private:
  Conv2d conv_;
  BatchNorm bn_;
};

/// A layer without parameters.
class PlainLayer : public Module {
 public:
  std::int64_t flops(const Shape&) const override { return 0; }
  void visit(const std::function<void(Parameter&)>&) override {}
};

class MaxPool : public PlainLayer {
 public:
  explicit MaxPool(const Pool2dOptions& options = {}) : options_(options) {}
  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;

 private:
  Pool2dOptions options_;
};

class AvgPool : public PlainLayer {
 public:
  explicit AvgPool(const Pool2dOptions& options = {}) : options_(options) {}
  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;

 private:
  Pool2dOptions options_;
};

class AdaptiveAvgPool : public PlainLayer {
 public:
  AdaptiveAvgPool(std::int64_t out_h, std::int64_t out_w);
  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;

 private:
  std::int64_t out_h_, out_w_;
};

/// Its mask depends on Pass::dropout_key and on its name. Nothing in evaluation.
class Dropout : public PlainLayer {
 public:
  /// Throws Error unless 0 <= p < 1.
  Dropout(std::string name, double p);
  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override { return x; }

 private:
  std::string name_;
  double p_;
};

/// (N, …) -> (N, product of the rest).
class Flatten : public PlainLayer {
 public:
  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
};

class Sequential : public Module {
 public:
  Sequential() = default;
  explicit Sequential(std::vector<std::unique_ptr<Module>> layers);

  Sequential& add(std::unique_ptr<Module> layer);
  /// add(std::make_unique<Layer>(…))
  template <typename Layer, typename... Args>
  Sequential& emplace(Args&&... args) {
    return add(std::make_unique<Layer>(std::forward<Args>(args)...));
  }
  std::size_t size() const { return layers_.size(); }

  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::int64_t flops(const Shape& x) const override;
  std::int64_t first_flops(const Shape& x) const override;
  void visit(const std::function<void(Parameter&)>& visitor) override;
  void fold_batch_norms() override;

 private:
  std::vector<std::unique_ptr<Module>> layers_;
};

}  // namespace nf::nn
