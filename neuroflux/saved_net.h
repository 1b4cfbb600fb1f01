// A delivered network on storage: weights with all that is needed to run them again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "neuroflux/exits.h"
#include "neuroflux/local_net.h"
#include "nn/data/transform.h"
#include "nn/model.h"

namespace nf {

/// What stands beside the weights in the file's metadata.
struct SavedNet {
  std::string model;
  nn::ModelOptions options;
  nn::TransformOptions transform;  ///< without augmentation
  std::int64_t exit_unit = 0;      ///< counted from 1; 0: the whole net
  /// Of an exit whose units are made of several of the net's own: how many; empty: one each.
  std::vector<std::int64_t> joined_units;
  std::string auxiliary_rule;  ///< of an exit
  std::vector<std::int64_t> auxiliary_widths;

  /// Throws Error when storage fails; the file is complete or not there.
  void write(const std::filesystem::path& path, const nn::StateDict& weights) const;
};

/// What stands beside the weights of a whole net that was trained on images that were normalised by
/// `transform`.
SavedNet describe_net(const nn::Model& model, const nn::TransformOptions& transform);
/// What stands beside the weights of the exit at `unit` (counted from 0) of a net that was trained
/// by this plan, on images that were normalised by `transform`.
SavedNet describe_exit(const nn::Model& model, const Plan& plan, std::int64_t unit,
                       const nn::TransformOptions& transform);

/// A saved net ready to be put on a device.
class LoadedNet {
 public:
  /// Throws DataError naming the file and what is wrong with it: also a model that the registry of
  /// models does not have, and an auxiliary rule that is not registered.
  explicit LoadedNet(const std::filesystem::path& path);

  const SavedNet& description() const { return description_; }
  nn::Module& module() { return exit_ ? static_cast<nn::Module&>(*exit_) : *model_; }
  const nn::StateDict& weights() const { return weights_; }
  /// Those of the exit at `unit` (counted from 0) alone, this file's own or one before it, which it
  /// must hold too. Throws DataError naming the file where it does not.
  nn::StateDict exit_weights(std::int64_t unit);

 private:
  std::filesystem::path path_;
  SavedNet description_;
  nn::StateDict weights_;
  std::unique_ptr<nn::Model> model_;
  std::shared_ptr<const AuxiliaryRule> rule_;
  std::unique_ptr<LocalNet> net_;
  std::unique_ptr<ExitNet> exit_;
};

}  // namespace nf
