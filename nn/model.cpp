#include "nn/model.h"

#include <set>
#include <utility>

namespace nf::nn {

Unit::Unit(std::string name, std::int64_t out_channels, std::unique_ptr<Module> layer,
           std::int64_t joined)
    : name_(std::move(name)),
      out_channels_(out_channels),
      joined_(joined),
      layers_(std::move(layer)) {
  NF_CHECK(!name_.empty(), "unit: a unit must have a name");
  NF_CHECK(out_channels_ >= 1, "unit {}: output channels must be at least 1, got {}", name_,
           out_channels_);
  NF_CHECK(layers_ != nullptr, "unit {}: its layers are null", name_);
}

Tensor Unit::forward(const Pass& pass, const Tensor& x) {
  const UnitScope scope(name_);
  return layers_->forward(pass, x);
}

void Unit::visit(const std::function<void(Parameter&)>& visitor) {
  const UnitScope scope(name_);
  layers_->visit(visitor);
}

void Unit::fold_batch_norms() {
  const UnitScope scope(name_);
  layers_->fold_batch_norms();
}

void check_model_options(const ModelOptions& options) {
  NF_CHECK(options.input.rank() == 3 && options.input.numel() >= 1,
           "model: input must be (H, W, C) with extents of at least 1, got {}",
           options.input.str());
  NF_CHECK(options.classes >= 1, "model: classes must be at least 1, got {}", options.classes);
  NF_CHECK(options.width > 0 && options.width <= 16, "model: width must be in (0, 16], got {}",
           options.width);
  NF_CHECK(options.dropout >= 0 && options.dropout < 1, "model: dropout must be in [0, 1), got {}",
           options.dropout);
}

Model::Model(std::string name, const ModelOptions& options,
             std::vector<std::unique_ptr<Unit>> units, std::unique_ptr<Module> head)
    : name_(std::move(name)), options_(options), units_(std::move(units)), head_(std::move(head)) {
  check_model_options(options_);
  NF_CHECK(!units_.empty(), "model {}: it must have at least one unit", name_);
  NF_CHECK(head_ != nullptr, "model {}: its head is null", name_);
  std::set<std::string> names;
  Shape shape = input_shape(1);
  for (const auto& unit : units_) {
    NF_CHECK(unit != nullptr, "model {}: a unit is null", name_);
    NF_CHECK(names.insert(unit->name()).second, "model {}: two units are named {}", name_,
             unit->name());
    shape = unit->output_shape(shape);
    NF_CHECK(shape.rank() >= 2 && shape[-1] == unit->out_channels(),
             "model {}: unit {} must put out {} channels, got {}", name_, unit->name(),
             unit->out_channels(), shape.str());
  }
  const Shape logits = head_->output_shape(shape);
  const Shape expected{1, options_.classes};
  NF_CHECK(logits == expected, "model {}: its head must put out {}, got {}", name_, expected.str(),
           logits.str());
  names.clear();
  for (const Parameter* parameter : all())
    NF_CHECK(names.insert(parameter->name).second, "model {}: two parameters are named {}", name_,
             parameter->name);
}

Unit& Model::unit(std::int64_t i) const {
  NF_CHECK(i >= 0 && i < unit_count(), "model {}: unit {} of {} does not exist", name_, i,
           unit_count());
  return *units_[static_cast<std::size_t>(i)];
}

Shape Model::input_shape(std::int64_t batch) const {
  return {batch, options_.input[0], options_.input[1], options_.input[2]};
}

Shape Model::unit_input_shape(std::int64_t i, std::int64_t batch) const {
  NF_CHECK(i >= 0 && i <= unit_count(), "model {}: unit {} of {} does not exist", name_, i,
           unit_count());
  Shape shape = input_shape(batch);
  for (std::int64_t l = 0; l < i; ++l) shape = unit(l).output_shape(shape);
  return shape;
}

std::pair<std::vector<std::unique_ptr<Unit>>, std::unique_ptr<Module>> Model::take_apart() && {
  return {std::move(units_), std::move(head_)};
}

Tensor Model::classify(const Pass& pass, const Tensor& features) {
  const UnitScope scope("head");
  return head_->forward(pass, features);
}

Tensor Model::forward(const Pass& pass, const Tensor& x) {
  Tensor y = x;
  for (const auto& unit : units_) y = unit->forward(pass, y);
  return classify(pass, y);
}

Shape Model::output_shape(const Shape& x) const {
  Shape shape = x;
  for (const auto& unit : units_) shape = unit->output_shape(shape);
  return head_->output_shape(shape);
}

std::int64_t Model::flops(const Shape& x) const {
  Shape shape = x;
  std::int64_t sum = 0;
  for (const auto& unit : units_) {
    sum += unit->flops(shape);
    shape = unit->output_shape(shape);
  }
  return sum + head_->flops(shape);
}

void Model::visit(const std::function<void(Parameter&)>& visitor) {
  for (const auto& unit : units_) unit->visit(visitor);
  const UnitScope scope("head");
  head_->visit(visitor);
}

void Model::fold_batch_norms() {
  for (const auto& unit : units_) unit->fold_batch_norms();
  head_->fold_batch_norms();
}

std::unique_ptr<Module> make_classifier(const std::string& linear_name, std::int64_t in,
                                        std::int64_t classes, double dropout) {
  auto head = std::make_unique<Sequential>();
  head->emplace<AdaptiveAvgPool>(1, 1).emplace<Flatten>();
  if (dropout > 0) head->emplace<Dropout>(linear_name + ".dropout", dropout);
  head->emplace<Linear>(linear_name, in, classes);
  return head;
}

}  // namespace nf::nn
