// Sources of times for the planner: measured on the device, or predicted from FLOPs and bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "engine/context.h"
#include "engine/dtype.h"
#include "engine/shape.h"
#include "neuroflux/disk_chunks.h"
#include "neuroflux/time_model.h"

namespace nf {

/// Nominal speeds by which times are predicted; a plan made from them is the same everywhere.
struct DeviceSpeed {
  double flops_per_second = 0.0;
  double bytes_per_second = 0.0;       ///< of the device's memory
  double seconds_per_operator = 0.0;   ///< that each takes however small it is
  double host_bytes_per_second = 0.0;  ///< between host and device
  StorageSpeed storage;
};
/// What a device of that kind with that many threads typically reaches in training.
DeviceSpeed nominal_speed(const ContextOptions& target);

/// (1, H, W, C) of a sample (H, W, C): that of which modules tell FLOPs.
Shape batch_of_one(const Shape& sample);

/// Of caches in host memory, which wait for no storage.
StorageSpeed memory_speed();

/// Roofline: operators + FLOPs / speed + bytes / bandwidth. FLOPs are the modules' own: a unit's
/// are taken twice in training (forward and gradient of its weights; no gradient goes to its
/// input), a classifier's and a whole net's three times. Bytes are those that a step asks of the
/// pool on the meta device, each written once and read once, and the optimizer's state.
std::unique_ptr<TimeModel> make_predicted_times(const ContextOptions& target,
                                                const nn::OptimizerOptions& optimizer,
                                                const DeviceSpeed& speed);

struct MeasureOptions {
  ContextOptions device;  ///< its budget holds for the measurement too
  nn::OptimizerOptions optimizer;
  std::filesystem::path cache_folder;  ///< empty: storage is not measured but taken as nominal
  DType cache_dtype = DType::bf16;
  CachePlace cache_place = CachePlace::disk;  ///< in memory, storage is not measured
  CacheStorage cache_storage = {};            ///< how the files are read and written
  double seconds_per_point = 0.02;  ///< a step is repeated that long, at least three times
};

/// Answers a question that was asked before from memory: plans for several budgets and seeds then
/// rest on the same times. What a remembered answer had cost counts in replayed_seconds.
std::unique_ptr<TimeModel> remember_times(std::unique_ptr<TimeModel> source);

/// Runs real steps on the device at three batch sizes (the largest, a quarter and a sixteenth of
/// it), in turn, and takes the median of each. Parameters do not change: nothing learns from them.
/// Modules must not be on a device. Throws what training would: OutOfBudget, Error for storage.
std::unique_ptr<TimeModel> make_measured_times(const MeasureOptions& options);

}  // namespace nf
