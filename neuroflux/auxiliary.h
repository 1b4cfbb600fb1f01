// The small classifiers that give each unit a loss of its own, and the rules for their width.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/module.h"

namespace nf {

/// How the auxiliary networks of a net are built. Derive from it to bring your own, and register it
/// where it is to be known by its name: to saved nets, plan files, ExperimentOptions.
class AuxiliaryRule {
 public:
  virtual ~AuxiliaryRule() = default;
  virtual std::string name() const = 0;
  /// Widths to choose from for a unit with these output features (N, H, W, C), ascending and not
  /// empty. The planner takes the largest with which the unit's feasible batch is at least the
  /// batch wanted; where none has that, the one with the largest feasible batch.
  virtual std::vector<std::int64_t> widths(const Shape& features) const = 0;
  /// A classifier (N, H, W, C) -> (N, classes) whose parameters' names begin with `prefix`.
  virtual std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                           std::int64_t classes, std::int64_t width) const = 0;
};

/// 3x3 convolution of `width` filters, batch norm and ReLU, adaptive average pooling to 2x2 (less
/// where the map is smaller), linear. Maps larger than `pool_to` are averaged down to that size
/// first; 0: never.
std::unique_ptr<nn::Module> make_conv_classifier(const std::string& prefix, const Shape& features,
                                                 std::int64_t classes, std::int64_t width,
                                                 std::int64_t pool_to);

/// Maps averaged down to 4x4 (less where they are smaller), 1x1 convolution to `width` channels and
/// 3x3 depthwise convolution, each with batch norm and ReLU, averaging to 2x2, and a perceptron
/// with `width` hidden neurons (batch norm, ReLU) on that. For C channels some 2 w (16 C + 144 + 4
/// w) FLOPs an image: 9 times fewer than a 3x3 convolution on a 4x4 map, 36 times fewer than on
/// 8x8.
std::unique_ptr<nn::Module> make_pooled_classifier(const std::string& prefix, const Shape& features,
                                                   std::int64_t classes, std::int64_t width);

/// A small net of its own, made as the rest of a net is: 3x3 convolutions of stride 2 until the map
/// is 4x4 or smaller, the first of 2 `width` filters and each of twice those of the one before (512
/// at most, unless `width` is more), one more of stride 1, all with batch norm and ReLU, adaptive
/// average pooling to 2x2 (less where the map is smaller), linear. Maps larger than 16x16 are
/// averaged down to that size first. On 16x16 maps of C = `width` channels, 128 at most, some
/// 9,216 C^2 FLOPs an image.
std::unique_ptr<nn::Module> make_deep_classifier(const std::string& prefix, const Shape& features,
                                                 std::int64_t classes, std::int64_t width);

/// The rules that come with the project:
///  - classic: 256 filters for every unit, no pooling before: the baseline of local learning;
///  - proportional: half of the unit's channels, at least 8 and at most 256, no pooling before;
///  - adaptive: 16 to 256 filters by what the budget allows, no more than the unit has channels
///    (16 at least), on maps averaged down to 8x8;
///  - pooled: as adaptive, on maps averaged down to 4x4, with cheap convolutions and a small
///    perceptron (make_pooled_classifier);
///  - deep: as adaptive, with convolutions of stride 2 and growing width in place of averaging
///    (make_deep_classifier): for units that many layers were joined to;
/// and those that were registered. Throws Error for an unknown name, with the nearest known one.
std::shared_ptr<const AuxiliaryRule> make_auxiliary_rule(std::string_view name);
/// The project's own first, then those that were registered, in that order.
std::vector<std::string> auxiliary_rule_names();

/// Makes a rule; called once when it is registered and whenever its name is asked for, on the
/// thread that asks.
using AuxiliaryRuleFactory = std::function<std::shared_ptr<const AuxiliaryRule>()>;

/// Makes a rule of your own known to all of this process, before anything that names it is read:
/// a saved exit, a plan file, ExperimentOptions::auxiliary. May be called from any thread. Throws
/// Error for a name that is empty or known already, and for a factory that makes nothing or a rule
/// whose name() is another.
void register_auxiliary_rule(const std::string& name, AuxiliaryRuleFactory factory);

}  // namespace nf
