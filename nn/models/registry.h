// Nets by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"

namespace nf::nn {

/// "vgg11", "resnet18", "mobilenet_v2", …; case, '-' and '_' do not matter. Throws Error that names
/// the nearest known name, and for options that make no sense.
std::unique_ptr<Model> make_model(std::string_view name, const ModelOptions& options);

/// All names, in the order they are best listed in.
const std::vector<std::string>& model_names();

}  // namespace nf::nn
