// How much memory a method needs, to the byte, found by running its very steps on the meta device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "neuroflux/local_block.h"
#include "nn/checkpoint_trainer.h"
#include "nn/model.h"

namespace nf {

/// What will be run at one batch size: whole batches and the last short one of each set.
struct Workload {
  std::int64_t batch = 1;
  std::int64_t train_count = 1;
  /// Sets that are evaluated (validation, test), each by its number of samples.
  std::vector<std::int64_t> evaluation_counts;
  /// Whether the outputs are computed once more in evaluation mode for the next block.
  bool fills_cache = false;
  /// Of stored pixels that the device turns into samples; none: the host gives it values.
  std::optional<nn::PixelFormat> format = std::nullopt;
};

/// Answers "how many bytes at most?" on a meta context. Modules must not be on a device.
class MemoryProfiler {
 public:
  /// `target` says which device, threads and libraries the answer is for.
  MemoryProfiler(const ContextOptions& target, const nn::OptimizerOptions& optimizer);

  /// Peak reserved bytes of a block trained under that workload; state of all its units included.
  std::int64_t block_peak(const std::vector<LocalUnit>& units, const Shape& sample_shape,
                          const Workload& workload);
  /// The same of the whole net under backpropagation.
  std::int64_t bp_peak(nn::Model& model, const Workload& workload);
  /// Under backpropagation whose batches come in micro-batches, evaluation included.
  std::int64_t accumulate_peak(nn::Model& model, const Workload& workload,
                               std::int64_t micro_batch);
  /// Under backpropagation that computes activations inside segments again; without segments, in
  /// nn::sqrt_segments.
  std::int64_t checkpoint_peak(nn::Model& model, const Workload& workload,
                               const nn::Segments& segments = {});

  /// Segments with the least peak of a training step, the fewest among equals: of all there are for
  /// up to 10 units. For more they are found from even ones of every count, the cheapest first, by
  /// changing one or two borders at a time until that brings nothing or 200 were tried, as each
  /// trial is a step on the meta device. (Which pieces leave holes decides, so that no sum over
  /// segments tells a peak: by what is live alone, the best were up to 9% above the least.)
  nn::Segments least_segments(nn::Model& model, const Workload& workload);

  const ContextPtr& context() const { return context_; }

 private:
  std::int64_t measure(const std::function<void()>& run);
  /// Of the trainer that `make` makes for the model.
  std::int64_t whole_net_peak(const nn::Model& model, const Workload& workload,
                              const std::function<std::unique_ptr<nn::WholeNetTrainer>()>& make);

  ContextPtr context_;
  nn::OptimizerOptions optimizer_;
};

/// The largest batch in 1..max_batch with peak(batch) <= budget, 0 where there is none. The peak is
/// taken to grow with the batch; the answer itself is always checked.
std::int64_t largest_batch(std::int64_t max_batch, std::int64_t budget,
                           const std::function<std::int64_t(std::int64_t)>& peak);

/// Sizes of the batches that `count` samples come in: `batch`, and what remains where it does.
std::vector<std::int64_t> batch_sizes(std::int64_t count, std::int64_t batch);

}  // namespace nf
