#include "neuroflux/local_net.h"

namespace nf {
namespace {

std::vector<std::int64_t> planned_widths(const Plan& plan) {
  std::vector<std::int64_t> widths;
  for (const UnitPlan& unit : plan.units) widths.push_back(unit.auxiliary_width);
  return widths;
}

}  // namespace

std::unique_ptr<nn::Module> make_auxiliary(const nn::Model& model, const AuxiliaryRule& rule,
                                           std::int64_t unit, std::int64_t width) {
  return rule.make("aux." + model.unit(unit).name(), model.unit_input_shape(unit + 1, 1),
                   model.options().classes, width);
}

LocalNet::LocalNet(nn::Model& model, const AuxiliaryRule& rule,
                   const std::vector<std::int64_t>& widths)
    : model_(model) {
  NF_CHECK(static_cast<std::int64_t>(widths.size()) == model.unit_count(),
           "local net: {} widths for the {} units of {}", widths.size(), model.unit_count(),
           model.name());
  for (std::int64_t i = 0; i + 1 < model.unit_count(); ++i)
    auxiliaries_.push_back(make_auxiliary(model, rule, i, widths[static_cast<std::size_t>(i)]));
}

LocalNet::LocalNet(nn::Model& model, const AuxiliaryRule& rule, const Plan& plan)
    : LocalNet(model, rule, planned_widths(plan)) {}

nn::Module& LocalNet::classifier(std::int64_t unit) const {
  return unit + 1 == model_.unit_count() ? model_.head()
                                         : *auxiliaries_[static_cast<std::size_t>(unit)];
}

std::vector<LocalUnit> LocalNet::range(std::int64_t first, std::int64_t last) const {
  std::vector<LocalUnit> units;
  for (std::int64_t i = first; i <= last; ++i)
    units.push_back({model_.unit(i).name(), &model_.unit(i), &classifier(i)});
  return units;
}

}  // namespace nf
