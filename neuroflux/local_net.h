// A net as local learning sees it: each unit with the classifier that trains it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "neuroflux/auxiliary.h"
#include "neuroflux/local_block.h"
#include "neuroflux/plan.h"
#include "nn/model.h"

namespace nf {

/// The auxiliary network that a rule gives a unit.
std::unique_ptr<nn::Module> make_auxiliary(const nn::Model& model, const AuxiliaryRule& rule,
                                           std::int64_t unit, std::int64_t width);

/// The units of a model with their classifiers: auxiliary networks of the planned widths, and the
/// model's own head behind the last unit.
class LocalNet {
 public:
  LocalNet(nn::Model& model, const AuxiliaryRule& rule, const std::vector<std::int64_t>& widths);
  /// With the widths of a plan.
  LocalNet(nn::Model& model, const AuxiliaryRule& rule, const Plan& plan);

  nn::Model& model() const { return model_; }
  nn::Module& classifier(std::int64_t unit) const;
  std::vector<LocalUnit> range(std::int64_t first, std::int64_t last) const;
  /// (H, W, C) that a unit gets.
  Shape input_sample(std::int64_t unit) const { return model_.unit_input_shape(unit, 1).sample(); }

 private:
  nn::Model& model_;
  std::vector<std::unique_ptr<nn::Module>> auxiliaries_;
};

}  // namespace nf
