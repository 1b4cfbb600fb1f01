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
  if (max_batch < 1 || peak(1) > budget) return 0;
  std::int64_t fits = 1;
  std::int64_t too_large = max_batch + 1;
  // Doubling first: most searches end at small batches, where a probe is cheapest.
  while (too_large - fits > 1) {
    const std::int64_t probe =
        too_large == max_batch + 1 ? std::min(2 * fits, max_batch) : (fits + too_large) / 2;
    (peak(probe) <= budget ? fits : too_large) = probe;
  }
  return fits;
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
