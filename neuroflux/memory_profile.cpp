#include "neuroflux/memory_profile.h"

#include <algorithm>

#include "nn/accumulate_trainer.h"
#include "nn/bp_trainer.h"

namespace nf {
namespace {

nn::HostBatch meta_batch(std::int64_t size, const Shape& sample, const Workload& workload) {
  return {.size = size, .sample = sample, .format = workload.format};
}

}  // namespace

std::vector<std::int64_t> batch_sizes(std::int64_t count, std::int64_t batch) {
  NF_CHECK(count >= 0 && batch >= 1, "batches: {} samples in batches of {}", count, batch);
  std::vector<std::int64_t> sizes;
  if (count >= batch) sizes.push_back(batch);
  if (count % batch > 0) sizes.push_back(count % batch);
  return sizes;
}

std::int64_t largest_batch(std::int64_t max_batch, std::int64_t budget,
                           const std::function<std::int64_t(std::int64_t)>& peak) {
  struct Probe {
    std::int64_t batch, peak;
  };
  if (max_batch < 1) return 0;
  Probe too_large{max_batch, peak(max_batch)};
  if (too_large.peak <= budget) return max_batch;
  Probe fits{1, max_batch > 1 ? peak(1) : too_large.peak};
  if (fits.peak > budget) return 0;
  // Peaks lie close to a line: where it meets the budget, the search is over after a few probes.
  // Where they don't, halves end it.
  constexpr int kGuesses = 6;
  for (int probes = 0; too_large.batch - fits.batch > 1; ++probes) {
    const double share = probes < kGuesses ? static_cast<double>(budget - fits.peak) /
                                                 static_cast<double>(too_large.peak - fits.peak)
                                           : 0.5;
    const auto step =
        static_cast<std::int64_t>(share * static_cast<double>(too_large.batch - fits.batch));
    const std::int64_t batch = std::clamp(fits.batch + step, fits.batch + 1, too_large.batch - 1);
    const Probe probe{batch, peak(batch)};
    (probe.peak <= budget ? fits : too_large) = probe;
  }
  return fits.batch;
}

MemoryProfiler::MemoryProfiler(const ContextOptions& target, const nn::OptimizerOptions& optimizer)
    : context_(make_meta_context(target)), optimizer_(optimizer) {}

std::int64_t MemoryProfiler::measure(const std::function<void()>& run) {
  NF_CHECK(context_->pool().stats().live == 0, "memory profile: the meta device is not empty");
  context_->pool().reset_peak();
  run();
  return context_->pool().stats().peak_reserved;
}

std::int64_t MemoryProfiler::block_peak(const std::vector<LocalUnit>& units,
                                        const Shape& sample_shape, const Workload& workload) {
  const auto batch = [&](std::int64_t size) { return meta_batch(size, sample_shape, workload); };
  return measure([&] {
    LocalBlock block(context_, units, sample_shape, optimizer_, 0);
    for (const std::int64_t size : batch_sizes(workload.train_count, workload.batch))
      block.train(batch(size), {});
    for (const std::int64_t count : workload.evaluation_counts)
      for (const std::int64_t size : batch_sizes(count, workload.batch)) {
        block.evaluate(batch(size));
        if (workload.fills_cache) block.forward(batch(size), nullptr);
      }
    if (workload.fills_cache)
      for (const std::int64_t size : batch_sizes(workload.train_count, workload.batch))
        block.forward(batch(size), nullptr);
  });
}

std::int64_t MemoryProfiler::whole_net_peak(
    const nn::Model& model, const Workload& workload,
    const std::function<std::unique_ptr<nn::WholeNetTrainer>()>& make) {
  const auto batch = [&](std::int64_t size) {
    return meta_batch(size, model.options().input, workload);
  };
  return measure([&] {
    const std::unique_ptr<nn::WholeNetTrainer> trainer = make();
    for (const std::int64_t size : batch_sizes(workload.train_count, workload.batch))
      trainer->train(batch(size), {});
    for (const std::int64_t count : workload.evaluation_counts)
      for (const std::int64_t size : batch_sizes(count, workload.batch))
        trainer->evaluate(batch(size));
  });
}

std::int64_t MemoryProfiler::bp_peak(nn::Model& model, const Workload& workload) {
  return whole_net_peak(model, workload, [&] {
    return std::make_unique<nn::BpTrainer>(context_, model, optimizer_, 0);
  });
}

std::int64_t MemoryProfiler::accumulate_peak(nn::Model& model, const Workload& workload,
                                             std::int64_t micro_batch) {
  return whole_net_peak(model, workload, [&] {
    return std::make_unique<nn::AccumulateTrainer>(context_, model, optimizer_, 0, micro_batch);
  });
}

std::int64_t MemoryProfiler::checkpoint_peak(nn::Model& model, const Workload& workload,
                                             const nn::Segments& segments) {
  return whole_net_peak(model, workload, [&] {
    return std::make_unique<nn::CheckpointTrainer>(context_, model, optimizer_, 0, segments);
  });
}

}  // namespace nf
