// What caches and checkpoints were made from, as hashes that tell them from those of other
// trainings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "neuroflux/local_block.h"
#include "neuroflux/local_trainer.h"

namespace nf {

/// Of all images and labels, and of which of them train and which validate. Reads each byte once:
/// some 20 ms for CIFAR-10.
std::uint64_t data_hash(const nn::TrainingData& data);

/// Of what the units, without their classifiers, have in `weights`, continuing `hash`. Names that
/// are missing there count as such.
std::uint64_t weights_hash(const std::vector<LocalUnit>& units, const nn::StateDict& weights,
                           std::uint64_t hash);

/// All options on which learnt values hang, besides net, plan and images.
std::string training_text(const LocalTrainingOptions& options, const nn::TrainingData& data);

}  // namespace nf
