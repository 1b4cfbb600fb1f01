#include "neuroflux/saved_net.h"

#include <nlohmann/json.hpp>

#include "neuroflux/local_trainer.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"
#include "nn/safetensors.h"

namespace nf {
namespace {

using nlohmann::json;

constexpr const char* kKey = "neuroflux";

std::vector<std::int64_t> extents_of(const Shape& shape) {
  return {shape.extents().begin(), shape.extents().end()};
}

json to_json(const SavedNet& net) {
  return {{"model", net.model},
          {"input", extents_of(net.options.input)},
          {"classes", net.options.classes},
          {"width", net.options.width},
          {"dropout", net.options.dropout},
          {"mean", net.transform.mean},
          {"std", net.transform.std},
          {"pad_to_height", net.transform.pad_to_height},
          {"pad_to_width", net.transform.pad_to_width},
          {"exit_unit", net.exit_unit},
          {"joined_units", net.joined_units},
          {"auxiliary_rule", net.auxiliary_rule},
          {"auxiliary_widths", net.auxiliary_widths}};
}

SavedNet from_json(const json& fields) {
  SavedNet net;
  net.model = fields.at("model");
  const auto input = fields.at("input").get<std::vector<std::int64_t>>();
  net.options.input = Shape(std::span<const std::int64_t>(input));
  net.options.classes = fields.at("classes");
  net.options.width = fields.at("width");
  net.options.dropout = fields.at("dropout");
  net.transform.mean = fields.at("mean").get<std::vector<float>>();
  net.transform.std = fields.at("std").get<std::vector<float>>();
  net.transform.pad_to_height = fields.at("pad_to_height");
  net.transform.pad_to_width = fields.at("pad_to_width");
  net.exit_unit = fields.at("exit_unit");
  // Files of earlier versions know single units only.
  if (fields.contains("joined_units"))
    net.joined_units = fields.at("joined_units").get<std::vector<std::int64_t>>();
  net.auxiliary_rule = fields.at("auxiliary_rule");
  net.auxiliary_widths = fields.at("auxiliary_widths").get<std::vector<std::int64_t>>();
  return net;
}

}  // namespace

void SavedNet::write(const std::filesystem::path& path, const nn::StateDict& weights) const {
  nn::write_safetensors(path, {weights, {{kKey, to_json(*this).dump()}}});
}

SavedNet describe_net(const nn::Model& model, const nn::TransformOptions& transform) {
  SavedNet saved;
  saved.model = model.name();
  saved.options = model.options();
  saved.transform = transform;
  return saved;
}

SavedNet describe_exit(const nn::Model& model, const Plan& plan, std::int64_t unit,
                       const nn::TransformOptions& transform) {
  SavedNet saved = describe_net(model, transform);
  saved.exit_unit = unit + 1;
  saved.joined_units = joined_sizes(plan);
  saved.auxiliary_rule = plan.auxiliary_rule;
  for (const UnitPlan& planned : plan.units)
    saved.auxiliary_widths.push_back(planned.auxiliary_width);
  return saved;
}

LoadedNet::LoadedNet(const std::filesystem::path& path) : path_(path) {
  nn::Weights file = nn::read_safetensors(path);
  const auto metadata = file.metadata.find(kKey);
  if (metadata == file.metadata.end())
    fail_data("{}: has no '{}' metadata, so it is not a net that this program saved", path.string(),
              kKey);
  try {
    description_ = from_json(json::parse(metadata->second));
    model_ = nn::make_model(description_.model, description_.options);
    if (!description_.joined_units.empty())
      model_ = nn::join_units(std::move(model_), description_.joined_units);
    if (description_.exit_unit > 0) {
      NF_CHECK(description_.exit_unit <= model_->unit_count(), "exit {} of a net of {} units",
               description_.exit_unit, model_->unit_count());
      rule_ = make_auxiliary_rule(description_.auxiliary_rule);
      net_ = std::make_unique<LocalNet>(*model_, *rule_, description_.auxiliary_widths);
      exit_ = std::make_unique<ExitNet>(*net_, description_.exit_unit - 1);
    }
    weights_ = std::move(file.tensors);
    // A missing or misshapen tensor is told now, not when the net is put on a device.
    module().materialize(make_meta_context({}), weights_);
    module().release();
  } catch (const json::exception& error) {
    fail_data("{}: damaged '{}' metadata: {}", path.string(), kKey, error.what());
  } catch (const Error& error) {
    fail_data("{}: {}", path.string(), error.what());
  }
}

nn::StateDict LoadedNet::exit_weights(std::int64_t unit) {
  try {
    NF_CHECK(unit >= 0 && unit < description_.exit_unit, "has no exit {}, its last is {}", unit + 1,
             description_.exit_unit);
    nn::StateDict weights = nf::exit_weights(*net_, weights_, unit);
    ExitNet exit(*net_, unit);
    exit.materialize(make_meta_context({}), weights);
    exit.release();
    return weights;
  } catch (const Error& error) {
    fail_data("{}: {}", path_.string(), error.what());
  }
}

}  // namespace nf
