// Which of a net's units learn from one loss, under a budget.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "neuroflux/plan.h"

namespace nf {

/// The net with units joined by a rule (nn::joined_unit_sizes) as far as the budget lets: a joined
/// unit whose step does not fit at the batch wanted, with the narrowest auxiliary network, is cut
/// in two of about the same FLOPs, until it does or is one of the net's own. So under a budget
/// small enough each unit learns by itself, and the larger the budget, the closer it comes to
/// backpropagation. Throws Error as joined_unit_sizes does.
std::unique_ptr<nn::Model> join_units_that_fit(std::unique_ptr<nn::Model> model,
                                               std::string_view units, const AuxiliaryRule& rule,
                                               const PlanOptions& options,
                                               const ContextOptions& target);

/// The least budget under which each of the model's units can be trained at batch 1 with the
/// narrowest auxiliary network.
std::int64_t least_unit_budget(nn::Model& model, const AuxiliaryRule& rule,
                               const PlanOptions& options, const ContextOptions& target);

}  // namespace nf
