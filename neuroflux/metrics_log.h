// metrics.jsonl: one line of JSON per epoch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "neuroflux/disk_file.h"
#include "neuroflux/json_value.h"
#include "neuroflux/local_trainer.h"
#include "nn/fit.h"

namespace nf {

nlohmann::json to_json(const nn::EpochMetrics& metrics);
/// What to_json wrote. Throws DataError.
nn::EpochMetrics read_epoch(const JsonValue& value);

/// A line is complete as soon as it is written.
class MetricsLog {
 public:
  /// Goes on after the first `bytes` of the file, which is cut there; 0: a new one. Throws Error
  /// where it can't be written, or is shorter.
  explicit MetricsLog(std::filesystem::path path, std::int64_t bytes = 0);

  /// Throws Error where it can't be written.
  void add(const Stage& stage, const nn::EpochMetrics& metrics, double elapsed_seconds);
  /// Returns when all lines are on storage: before anything is written that counts on them. Throws
  /// Error.
  void sync() { file_.sync(); }
  /// Written so far.
  std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t bytes_ = 0;
  DiskFile file_;
};

}  // namespace nf
