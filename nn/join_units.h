// Larger units: consecutive units of a net under one loss.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"

namespace nf::nn {

/// How many consecutive units of `model` each larger unit takes, by a rule: "each" (one), "stage"
/// (those whose outputs have the same height and width), the numbers themselves, two at least
/// ("4,5"), or how many larger units there shall be ("4"; at most as many as the model has), of
/// FLOPs as alike as can be: the dearest is as cheap as any cut allows. Throws Error for anything
/// else, and for numbers that do not add up to the model's units.
std::vector<std::int64_t> joined_unit_sizes(const Model& model, std::string_view rule);

/// How many of the `count` units from `first` on, at least 2, make the first of two larger units of
/// FLOPs as alike as can be.
std::int64_t first_half(const Model& model, std::int64_t first, std::int64_t count);

/// The same net, parameters' names included, with sizes[i] consecutive units as its unit i, named
/// after the first and the last, as in "layer1.0..layer1.1". Throws Error unless sizes are at least
/// 1 and add up to the number of units.
std::unique_ptr<Model> join_units(std::unique_ptr<Model> model,
                                  const std::vector<std::int64_t>& sizes);

}  // namespace nf::nn
