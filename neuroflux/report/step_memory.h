// What one training step holds on the device from its first allocation to its last, found by
// running the step again on the meta device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/memory/trace.h"
#include "neuroflux/experiment_options.h"
#include "neuroflux/run_record.h"

namespace nf::report {

struct StepMemory {
  std::string method;
  std::int64_t block = 0;  ///< counted from 1; 0: the whole net
  std::int64_t batch = 0;
  std::vector<MemoryEvent> events;
};

/// A step of the method's trained block with the largest predicted peak, at its recorded batch,
/// with the auxiliary networks of the recorded plan and its updates when the method made them.
/// Model, optimizer and device are those of `options`, the run's own. Throws Error where they and
/// the record don't agree, and where the device is none that this build knows.
StepMemory trace_step(const RunRecord& run, const MethodSummary& method,
                      const ExperimentOptions& options);

}  // namespace nf::report
