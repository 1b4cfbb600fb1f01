#include "neuroflux/joint_units.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "neuroflux/local_net.h"
#include "neuroflux/memory_profile.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"

namespace nf {
namespace {

// Of one unit's step at a batch, with its narrowest auxiliary network or the net's head.
std::int64_t peak_of(MemoryProfiler& profiler, nn::Model& model, std::int64_t i,
                     const AuxiliaryRule& rule, const PlanOptions& options, std::int64_t batch) {
  const bool last = i + 1 == model.unit_count();
  std::unique_ptr<nn::Module> auxiliary;
  if (!last)
    auxiliary =
        make_auxiliary(model, rule, i, rule.widths(model.unit_input_shape(i + 1, 1)).front());
  const LocalUnit unit{model.unit(i).name(), &model.unit(i),
                       last ? &model.head() : auxiliary.get()};
  return profiler.block_peak({unit}, model.unit_input_shape(i, 1).sample(),
                             {batch,
                              options.train_count,
                              {options.validation_count},
                              !last,
                              i == 0 ? options.format : std::nullopt});
}

}  // namespace

std::unique_ptr<nn::Model> join_units_that_fit(std::unique_ptr<nn::Model> model,
                                               std::string_view units, const AuxiliaryRule& rule,
                                               const PlanOptions& options,
                                               const ContextOptions& target) {
  const auto joined = [&](const std::vector<std::int64_t>& sizes) {
    return nn::join_units(nn::make_model(model->name(), model->options()), sizes);
  };
  std::vector<std::int64_t> sizes = nn::joined_unit_sizes(*model, units);
  const std::int64_t batch = std::min(options.batch, options.train_count);
  MemoryProfiler profiler(target, options.optimizer);
  std::unique_ptr<nn::Model> net = joined(sizes);
  std::int64_t first = 0;  // of the model's own units in joined unit i
  for (std::size_t i = 0; i < sizes.size();) {
    const auto index = static_cast<std::int64_t>(i);
    if (sizes[i] == 1 || peak_of(profiler, *net, index, rule, options, batch) <= options.budget) {
      first += sizes[i++];
      continue;
    }
    const std::int64_t front = nn::first_half(*model, first, sizes[i]);
    sizes.insert(sizes.begin() + index + 1, sizes[i] - front);
    sizes[i] = front;
    net = joined(sizes);
  }
  return net;
}

std::int64_t least_unit_budget(nn::Model& model, const AuxiliaryRule& rule,
                               const PlanOptions& options, const ContextOptions& target) {
  MemoryProfiler profiler(target, options.optimizer);
  std::int64_t least = 0;
  for (std::int64_t i = 0; i < model.unit_count(); ++i)
    least = std::max(least, peak_of(profiler, model, i, rule, options, 1));
  return least;
}

}  // namespace nf
