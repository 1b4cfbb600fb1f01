// Plans of the methods that keep the whole net on the device: backpropagation at once, in
// micro-batches, or with activations computed again.
#pragma once

#include <cstdint>
#include <memory>

#include "neuroflux/plan.h"
#include "nn/checkpoint_trainer.h"
#include "nn/whole_net_trainer.h"

namespace nf {

enum class WholeNetMethod : std::uint8_t { bp, accumulate, checkpoint };

struct WholeNetPlan {
  WholeNetMethod method = WholeNetMethod::bp;
  bool fits = false;
  /// bp and checkpoint: the fastest that fits, at most the one wanted; accumulate: the one wanted.
  std::int64_t batch = 0;
  std::int64_t micro_batch = 0;  ///< accumulate: on the device at a time
  nn::Segments segments;         ///< checkpoint
  std::int64_t predicted_peak_bytes = 0;
  std::int64_t minimum_budget = 0;  ///< bytes to train one sample at a time
  BlockTime time;                   ///< predicted
};

/// Plans the method under the budget. Accumulation takes the fastest micro-batch that fits;
/// checkpointing the square-root segments, or those with the least peak where only with them the
/// batch wanted fits. Throws Error for bad options.
WholeNetPlan make_whole_net_plan(WholeNetMethod method, nn::Model& model,
                                 const PlanOptions& options, const ContextOptions& target,
                                 TimeModel& times);
/// Of backpropagation at once, by times predicted from FLOPs and bytes.
WholeNetPlan make_bp_plan(nn::Model& model, const PlanOptions& options,
                          const ContextOptions& target);

/// What runs the plan.
std::unique_ptr<nn::WholeNetTrainer> make_trainer(const WholeNetPlan& plan,
                                                  const ContextPtr& context, nn::Model& model,
                                                  const nn::OptimizerOptions& optimizer,
                                                  std::uint64_t seed);

}  // namespace nf
