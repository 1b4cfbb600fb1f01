// Which caches a plan leaves between its blocks, and whether there is room for them.
#pragma once

#include <cstddef>

#include "neuroflux/local_trainer.h"
#include "neuroflux/plan.h"
#include "neuroflux/run_caches.h"

namespace nf {

/// What block `k`, counted from 0, leaves for the next: names, sizes, no provenance. Empty for the
/// last block.
CacheGeneration cache_generation(const Plan& plan, std::size_t k, const nn::TrainingData& data,
                                 DType dtype);

RunCacheOptions run_cache_options(const LocalTrainingOptions& options);

/// Throws Error unless there is room for the caches of a plan that fits: in their folder, in the
/// host's available memory and in its limit, naming what is needed and what there is. Leaves
/// nothing behind, so that it can be tried before hours are spent.
void check_caches(const Plan& plan, const nn::TrainingData& data,
                  const LocalTrainingOptions& options);

}  // namespace nf
