// Backpropagation that keeps activations at the borders of segments only and computes those inside
// again. Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016.
#pragma once

#include "nn/whole_net_trainer.h"

namespace nf::nn {

/// Consecutive units whose activations are together on the device: the index of the first unit of
/// each segment, the first of which is 0. The head belongs to the last one.
using Segments = std::vector<std::int64_t>;

/// `count` segments of as equal numbers of units as can be, longer ones first. Throws Error unless
/// 1 <= count <= units.
Segments even_segments(std::int64_t units, std::int64_t count);
/// even_segments for the square root of their number, rounded.
Segments sqrt_segments(std::int64_t units);
/// Throws Error unless the first is 0 and each starts after the one before, at a unit that exists.
void check_segments(const Segments& segments, std::int64_t units);

/// The gradients of BpTrainer, on the CPU its very bits, for one more forward pass through all but
/// the last segment. Running statistics are updated once, dropout masks repeat.
class CheckpointTrainer : public WholeNetTrainer {
 public:
  /// Without segments: sqrt_segments. Throws Error for segments that are none of the model's,
  /// OutOfBudget.
  CheckpointTrainer(ContextPtr context, Model& model, const OptimizerOptions& optimizer,
                    std::uint64_t seed, Segments segments = {});

  const Segments& segments() const { return segments_; }

  StepResult train(const HostBatch& batch, const StepOptions& options) override;

 private:
  std::size_t last() const { return segments_.size() - 1; }
  Tensor forward(std::size_t segment, const Pass& pass, Tensor x) const;
  /// The gradient of the last segment's input, which is taken over; empty where none is wanted.
  Tensor backward_from_loss(Tensor x, const Tensor& labels, const StepOptions& options,
                            StepResult& result) const;
  /// The gradient of the segment's input from that of its output; both arguments are taken over.
  Tensor backward(std::size_t segment, Tensor x, Tensor gradient, const StepOptions& options) const;

  Segments segments_;
};

}  // namespace nf::nn
