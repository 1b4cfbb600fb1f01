#include "neuroflux/provenance.h"

#include <fmt/format.h>

#include <array>
#include <span>

#include "neuroflux/checksum.h"

namespace nf {
namespace {

template <typename Values>
std::uint64_t hash_values(const Values& values, std::uint64_t hash) {
  return hash_bytes(std::as_bytes(std::span(values)), hash);
}

std::uint64_t hash_images(const nn::ImageSet& set, std::uint64_t hash) {
  const std::array extents{set.count, set.height, set.width, set.channels, set.classes};
  hash = hash_values(extents, hash);
  hash = hash_values(set.pixels, hash);
  return hash_values(set.labels, hash);
}

}  // namespace

std::uint64_t data_hash(const nn::TrainingData& data) {
  std::uint64_t hash = hash_images(data.train_images(), 0);
  hash = hash_images(data.test_images(), hash);
  hash = hash_values(data.split().train, hash);
  return hash_values(data.split().validation, hash);
}

std::uint64_t weights_hash(const std::vector<LocalUnit>& units, const nn::StateDict& weights,
                           std::uint64_t hash) {
  for (const LocalUnit& unit : units)
    for (const nn::Parameter* parameter : unit.unit->all()) {
      hash = hash_values(parameter->name, hash);
      const auto found = weights.find(parameter->name);
      if (found != weights.end()) hash = hash_values(found->second.values, hash);
    }
  return hash;
}

std::string training_text(const LocalTrainingOptions& options, const nn::TrainingData& data) {
  const nn::OptimizerOptions& optimizer = options.optimizer;
  return fmt::format("{} {} {} {} {} {} {} {} {} {}; {} {} {} {} {} {} {} {} {}; {} {} {}",
                     to_string(optimizer.kind), optimizer.learning_rate, optimizer.momentum,
                     optimizer.nesterov, optimizer.weight_decay, optimizer.beta1, optimizer.beta2,
                     optimizer.eps, optimizer.decay_norm_and_bias, optimizer.max_gradient_norm,
                     options.epochs, options.reference_batch, to_string(options.schedule),
                     options.warmup_epochs, options.step_epochs, options.gamma,
                     options.label_smoothing, options.seed, to_string(options.cache_dtype),
                     data.transform().crop_padding, data.transform().flip, data.seed());
}

}  // namespace nf
