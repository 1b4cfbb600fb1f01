// How long the rest of a run takes: by its plans, corrected by what was measured since it began.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "neuroflux/summary.h"

namespace nf {

class TimeLeft {
 public:
  /// One block, or one method without blocks, of one run.
  struct Part {
    std::int64_t run = 1;   ///< counted from 1
    std::string stage;      ///< describe(Stage)
    double seconds = 0.0;   ///< predicted: training, validation and cache
    bool optional = false;  ///< saturated exits may end the method before it
  };

  /// In the order in which they will be worked through.
  explicit TimeLeft(std::vector<Part> parts) : parts_(std::move(parts)) {}

  /// Runs before this one are finished, or were by another process.
  void begin_run(std::int64_t run);
  /// `share` of the steps of `stage` in the present run are done at `now`, seconds of any clock
  /// that goes on. Parts before it are done or were left out; a stage that is not known says
  /// nothing.
  void update(const std::string& stage, double share, double now);

  /// Predicted seconds of what is left, times measured over predicted seconds of what was done
  /// since the first update; empty before anything was.
  std::optional<double> seconds() const;
  /// Whether some of what is left may turn out not to be needed.
  bool at_most() const;

 private:
  std::vector<Part> parts_;
  std::size_t current_ = 0;
  double share_ = 0.0;      // of the current part that is done
  double predicted_ = 0.0;  // of what was done since the first update
  double measured_ = 0.0;
  std::optional<double> last_;  // time of the last update
};

/// The parts of a planned run; `stops_early`: neuroflux trains no further than exits improve.
std::vector<TimeLeft::Part> parts_of(std::int64_t run, const Summary& plan, bool stops_early);

}  // namespace nf
