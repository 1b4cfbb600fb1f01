// The file from which an experiment that was cut off goes on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/plan.h"
#include "neuroflux/summary.h"
#include "neuroflux/training_state.h"

namespace nf {

/// Where an experiment stood at the end of an epoch, a block or a method.
struct Progress {
  std::string plan;                    ///< tells plans apart: it can only go on with this one,
  std::string training;                ///< with the same learning rate, schedule and so on,
  std::string data;                    ///< and with the same images and labels
  std::vector<MethodSummary> methods;  ///< those that are finished, and the one in training
  std::filesystem::path cache_folder;  ///< empty: the run folder's own
  std::int64_t metrics_bytes = 0;      ///< of metrics.jsonl that belong to it
  double elapsed_seconds = 0.0;        ///< of the method in training
  std::optional<double> energy_joules;
};

struct Checkpoint : Progress {
  /// Of the last of `methods`; none: that one is finished too.
  std::optional<TrainingState> state;
};

/// checkpoint.safetensors: weights and optimizer state as tensors, all else as JSON in the header,
/// with a checksum over both. It replaces the one before at once or not at all. `state` may be
/// null. Throws Error.
void write_checkpoint(const std::filesystem::path& folder, const Progress& progress,
                      const TrainingState* state);

/// `plans`: of each method of the experiment, null where it does not train by parts. Empty where
/// there is no such file. Throws DataError naming the file and what is wrong with it.
std::optional<Checkpoint> read_checkpoint(const std::filesystem::path& folder,
                                          const std::vector<const Plan*>& plans);

/// No error where there is none.
void remove_checkpoint(const std::filesystem::path& folder);

std::filesystem::path checkpoint_file(const std::filesystem::path& folder);

}  // namespace nf
