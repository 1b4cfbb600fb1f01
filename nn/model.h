// A net as a chain of units, each of which can be trained by a loss of its own, and a head.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/layers.h"

namespace nf::nn {

/// The smallest part of a net that is trained by its own loss. Memory it asks for bears its name.
class Unit : public Module {
 public:
  /// `joined`: how many units it was made of (see join_units). Throws Error for an empty name, no
  /// channels or no layers.
  Unit(std::string name, std::int64_t out_channels, std::unique_ptr<Module> layer,
       std::int64_t joined = 1);

  const std::string& name() const { return name_; }
  std::int64_t out_channels() const { return out_channels_; }
  std::int64_t joined() const { return joined_; }

  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override { return layers_->output_shape(x); }
  std::int64_t flops(const Shape& x) const override { return layers_->flops(x); }
  std::int64_t first_flops(const Shape& x) const override { return layers_->first_flops(x); }
  void visit(const std::function<void(Parameter&)>& visitor) override;
  void fold_batch_norms() override;

 private:
  std::string name_;
  std::int64_t out_channels_;
  std::int64_t joined_;
  std::unique_ptr<Module> layers_;
};

struct ModelOptions {
  Shape input{32, 32, 3};  ///< (H, W, C) of one image
  std::int64_t classes = 10;
  double width = 1.0;    ///< factor on every number of channels
  double dropout = 0.0;  ///< before the last linear layer
};

/// Throws Error unless input is (H, W, C) of extents >= 1, classes >= 1, 0 < width <= 16 and
/// 0 <= dropout < 1.
void check_model_options(const ModelOptions& options);

class Model : public Module {
 public:
  /// Any net: units in order and a head that maps the last one's output to (N, classes).
  /// Throws Error for bad options, no units, two parameters or units of one name, and shapes that
  /// don't fit.
  Model(std::string name, const ModelOptions& options, std::vector<std::unique_ptr<Unit>> units,
        std::unique_ptr<Module> head);

  const std::string& name() const { return name_; }
  const ModelOptions& options() const { return options_; }
  std::int64_t unit_count() const { return static_cast<std::int64_t>(units_.size()); }
  const std::vector<std::unique_ptr<Unit>>& units() const { return units_; }
  Unit& unit(std::int64_t i) const;
  Module& head() const { return *head_; }

  /// (batch, H, W, C) of the net's input.
  Shape input_shape(std::int64_t batch) const;
  /// Shape that unit i gets; i == unit_count() stands for the head.
  Shape unit_input_shape(std::int64_t i, std::int64_t batch) const;

  /// Units and head, to make another net of; nothing of this one may be used any more.
  std::pair<std::vector<std::unique_ptr<Unit>>, std::unique_ptr<Module>> take_apart() &&;

  /// Logits (N, classes) from the last unit's output.
  Tensor classify(const Pass& pass, const Tensor& features);
  /// Logits (N, classes).
  Tensor forward(const Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::int64_t flops(const Shape& x) const override;
  void visit(const std::function<void(Parameter&)>& visitor) override;
  void fold_batch_norms() override;

 private:
  std::string name_;
  ModelOptions options_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::unique_ptr<Module> head_;
};

/// Average over the map, flatten, dropout where p > 0, linear layer of that name.
std::unique_ptr<Module> make_classifier(const std::string& linear_name, std::int64_t in,
                                        std::int64_t classes, double dropout = 0.0);

}  // namespace nf::nn
