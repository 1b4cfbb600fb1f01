// What will be trained together, at which batch, with which auxiliary networks: decided before
// anything runs, from exact peaks on the meta device.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/auxiliary.h"
#include "neuroflux/memory_profile.h"
#include "neuroflux/partition.h"
#include "neuroflux/time_model.h"
#include "nn/model.h"

namespace nf {

/// A budget that nothing can be done in; the message names what would do.
class DoesNotFit : public Error {
 public:
  using Error::Error;
};

/// No batch is larger; products with it can't overflow.
inline constexpr std::int64_t kMaxBatch = std::int64_t{1} << 24;

/// Cached copies of the training set; more would only be epochs by another name.
inline constexpr std::int64_t kMaxCacheViews = 1000;

/// Where the peaks come from by which batches are chosen.
enum class MemoryModel : std::uint8_t {
  exact,   ///< the very steps on the meta device
  linear,  ///< alpha * batch + beta through a few of those peaks, as in the paper
};

struct PlanOptions {
  std::int64_t budget = 0;  ///< bytes of device memory that may ever be reserved; at least 1
  std::int64_t batch = 64;  ///< wanted, at most kMaxBatch; no block uses more
  PartitionRule partition = PartitionRule::optimal;
  MemoryModel memory_model = MemoryModel::exact;
  std::int64_t linear_points = 3;  ///< batches at which the linear model measures, at least 2
  /// Partition homogeneous: how far the feasible batch of a unit may differ from that of its
  /// block's first unit, as a fraction of the latter.
  double rho = 0.4;
  std::int64_t train_count = 50000;
  std::int64_t validation_count = 5000;
  std::int64_t test_count = 10000;
  DType cache_dtype = DType::bf16;
  std::int64_t cache_views = 1;  ///< cached copies of the training set, each augmented anew
  nn::OptimizerOptions optimizer;
  std::int64_t epochs = 6;  ///< per block, or of the whole net
  /// Whether later blocks may not be needed (see expected_seconds), and after how many exits
  /// without improvement.
  bool stop_when_saturated = true;
  std::int64_t patience = 2;
  /// Of the stored pixels of which the device makes the net's input; none: the host gives it
  /// values.
  std::optional<nn::PixelFormat> format = std::nullopt;
};

/// Throws Error naming the option, its rule and its value.
void check_plan_options(const PlanOptions& options);

struct UnitPlan {
  std::string name;
  std::int64_t joined = 1;                ///< of the net's own units it is made of
  Shape output;                           ///< (H, W, C)
  std::int64_t parameters = 0;            ///< of the unit
  std::int64_t auxiliary_width = 0;       ///< 0: the unit is the last and has the net's own head
  std::int64_t auxiliary_parameters = 0;  ///< of its auxiliary network or the head
  std::int64_t flops = 0;                 ///< forward, one image
  std::int64_t auxiliary_flops = 0;
  /// Largest batch whose step fits the budget with the unit alone on the device, sought up to 16
  /// times the batch wanted (and the training set's size); 0: not even one sample fits.
  std::int64_t feasible_batch = 0;
  std::int64_t minimum_budget = 0;   ///< bytes to train it at batch 1 with its cheapest width
  std::int64_t exit_parameters = 0;  ///< of the exit here: units up to this one and its classifier
  std::int64_t exit_flops = 0;       ///< forward, one image
  double step_seconds = 0.0;  ///< one training step at the batch of its block, without staging
  /// In words: why the classifier has this width, and why the unit joins the one before it or
  /// begins a block.
  std::string why_width, why_here;
};

struct BlockPlan {
  std::int64_t first_unit = 0;  ///< counted from 0, inclusive
  std::int64_t last_unit = 0;   ///< inclusive
  std::int64_t batch = 0;
  std::int64_t predicted_peak_bytes = 0;
  /// What the linear model says of the same batch, where it chose it.
  std::optional<std::int64_t> linear_peak_bytes = {};
  std::int64_t cache_bytes = 0;  ///< written to storage when it is done; 0 for the last block
  BlockTime time = {};           ///< predicted
  /// Largest that fits, at most the one wanted and those of its units alone; `batch` is the fastest
  /// up to it. In a plan that was given: `batch`.
  std::int64_t feasible_batch = 0;
};

struct Plan {
  bool fits = false;
  std::int64_t budget = 0;
  std::int64_t batch = 0;
  std::string auxiliary_rule;
  std::string partition;    ///< the rule, or "given"
  std::string time_source;  ///< "measured" or "predicted"
  std::vector<UnitPlan> units;
  std::vector<BlockPlan> blocks;  ///< empty unless it fits
  std::int64_t predicted_peak_bytes = 0;
  std::int64_t minimum_budget = 0;  ///< least bytes with which every unit can be trained at batch 1
  std::int64_t cache_views = 1;     ///< copies of the training set that are cached
  std::int64_t cache_bytes = 0;     ///< most that lies on storage at once: two generations
  std::int64_t full_parameters = 0;
  double predicted_seconds = 0.0;  ///< of training, cache and validation when all blocks are run
  /// The same when each unit is as likely as any other to be the last that improves, and training
  /// stops `patience` exits behind it: what `optimal` minimises. Equal to predicted_seconds where
  /// nothing stops early.
  double expected_seconds = 0.0;
  std::optional<nn::PixelFormat> format = std::nullopt;  ///< of the data set's batches, as planned
  nn::UpdateMoment update = nn::UpdateMoment::immediate;
};

/// How many of the net's own units each unit of the plan is made of.
std::vector<std::int64_t> joined_sizes(const Plan& plan);

/// Plans local learning on the device that `target` describes, by `times`. Throws Error for bad
/// options; a budget that no plan meets gives fits == false with the least one that would do.
Plan make_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
               const ContextOptions& target, TimeModel& times);
/// The same by times predicted from FLOPs and bytes.
Plan make_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanOptions& options,
               const ContextOptions& target);

/// What a person may decide: the width of each unit's auxiliary network (0 for the last, which has
/// the net's head) and the blocks with their batches.
struct PlanChoice {
  std::vector<std::int64_t> widths;
  struct Block {
    std::int64_t first_unit = 0, last_unit = 0;  ///< counted from 0, inclusive
    std::int64_t batch = 1;
  };
  std::vector<Block> blocks;
};

/// The plan that the choice makes, with its peaks and times. Throws Error naming unit or block and
/// rule where it is no plan for this model, DoesNotFit naming bytes and budget for a block that
/// does not fit.
Plan complete_plan(nn::Model& model, const AuxiliaryRule& rule, const PlanChoice& choice,
                   const PlanOptions& options, const ContextOptions& target, TimeModel& times);

}  // namespace nf
