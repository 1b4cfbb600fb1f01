#include "neuroflux/cache_plan.h"

#include <algorithm>

#include "engine/error.h"

namespace nf {

CacheGeneration cache_generation(const Plan& plan, std::size_t k, const nn::TrainingData& data,
                                 DType dtype) {
  CacheGeneration generation;
  if (k + 1 >= plan.blocks.size()) return generation;
  CacheSpec spec;
  spec.sample_shape = plan.units[static_cast<std::size_t>(plan.blocks[k].last_unit)].output;
  spec.dtype = dtype;
  spec.count = data.train_count();
  for (std::int64_t view = 0; view < plan.cache_views; ++view) {
    spec.name = fmt::format("train-after-block-{}", k + 1);
    if (plan.cache_views > 1) spec.name += fmt::format("-view-{}", view + 1);
    generation.train.push_back(spec);
  }
  if (data.validation_count() == 0) return generation;
  spec.name = fmt::format("validation-after-block-{}", k + 1);
  spec.count = data.validation_count();
  generation.validation.push_back(spec);
  return generation;
}

RunCacheOptions run_cache_options(const LocalTrainingOptions& options) {
  RunCacheOptions caches;
  caches.place = options.cache_place;
  caches.folder = options.cache_folder;
  caches.host_memory_bytes = options.cache_host_bytes;
  caches.storage = options.cache_storage;
  return caches;
}

void check_caches(const Plan& plan, const nn::TrainingData& data,
                  const LocalTrainingOptions& options) {
  if (plan.blocks.size() < 2) return;
  std::int64_t least = 0;
  for (std::size_t k = 0; k < plan.blocks.size(); ++k) {
    const CacheGeneration input =
        k == 0 ? CacheGeneration{} : cache_generation(plan, k - 1, data, options.cache_dtype);
    const CacheGeneration output = cache_generation(plan, k, data, options.cache_dtype);
    least = std::max(
        least, least_host_bytes(input, output, plan.blocks[k].batch, run_cache_options(options)));
  }
  const std::int64_t limit = options.cache_host_bytes;
  NF_CHECK(limit == 0 || least <= limit,
           "activation caches: they take {} bytes of host memory at the least, the limit is {}",
           least, limit);
  const std::int64_t available = available_host_bytes();
  NF_CHECK(least <= available,
           "activation caches: they take {} bytes of host memory at the least, the host has {} "
           "available",
           least, available);
  if (options.cache_place == CachePlace::disk)
    check_cache_folder(options.cache_folder, plan.cache_bytes);
}

}  // namespace nf
