// Where the time of a step went: calls of the backend, taken together in several ways.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/timed_backend.h"
#include "engine/context.h"

namespace nf::bench {

/// Fastest that a large matrix product computed and a large copy moved, in the same run.
struct Ceilings {
  double gflop_per_s = 0;
  double gb_per_s = 0;

  /// Keeps the better of these and of what the device reaches now.
  void measure(const ContextPtr& context);
  /// Less time than this a call can't take.
  double least_seconds(const CallCost& cost) const;
};

struct StepProfile {
  double seconds = 0;        ///< of one step
  std::int64_t counted = 0;  ///< steps that it is the mean of
  Ledger calls;              ///< of one step

  double seconds_in_calls() const;
};

/// After a warm-up, of `steps` steps on a context of that backend the mean of the faster half: what
/// else the machine does falls out, and parts still add up to the whole.
StepProfile profile_steps(TimedBackend& backend, std::int64_t steps,
                          const std::function<void()>& step);

/// By operator and pass, the longest first.
nlohmann::json by_operator(const Ledger& calls, double step_seconds, const Ceilings& ceilings);
/// By unit, in that order, each with its forward and backward pass; others follow.
nlohmann::json by_unit(const StepProfile& profile, const std::vector<std::string>& order);

}  // namespace nf::bench
