#include "neuroflux/report/step_memory.h"

#include <algorithm>
#include <span>

#include "neuroflux/local_block.h"
#include "neuroflux/local_net.h"
#include "neuroflux/whole_net_plan.h"
#include "nn/join_units.h"
#include "nn/models/registry.h"

namespace nf::report {
namespace {

// What of a plan says how a step of the whole net goes.
WholeNetPlan whole_net_plan(const MethodSummary& method) {
  WholeNetPlan plan;
  if (method.micro_batch) {
    plan.method = WholeNetMethod::accumulate;
    plan.micro_batch = *method.micro_batch;
  } else if (!method.segments.empty()) {
    plan.method = WholeNetMethod::checkpoint;
    for (const std::int64_t first : method.segments) plan.segments.push_back(first - 1);
  }
  return plan;
}

}  // namespace

StepMemory trace_step(const RunRecord& run, const MethodSummary& method,
                      const ExperimentOptions& options) {
  NF_CHECK(method.fits && !method.batches.empty(), "trace: {} has no batch to step with",
           method.name);
  std::unique_ptr<nn::Model> model = nn::make_model(options.model, {.input = run.summary.input,
                                                                    .classes = run.summary.classes,
                                                                    .width = options.width,
                                                                    .dropout = options.dropout});
  const ContextPtr meta = make_meta_context(options.device);
  nn::OptimizerOptions optimizer = options.training.optimizer;
  optimizer.update = method.update;
  StepMemory step{method.name, 0, method.batches.front(), {}};
  MemoryTrace trace;
  const Plan* plan = run.plan_of(method.name);
  if (plan == nullptr) {
    TraceScope recording(meta->pool(), &trace);
    const auto trainer = make_trainer(whole_net_plan(method), meta, *model, optimizer, 0);
    trainer->train({.size = step.batch, .sample = run.summary.input, .format = run.summary.format},
                   {});
    recording.end();
  } else {
    NF_CHECK(!plan->blocks.empty(), "trace: the plan of {} has no blocks", method.name);
    model = nn::join_units(std::move(model), joined_sizes(*plan));
    // Only blocks that were trained have a batch in the summary.
    const auto trained =
        std::span(plan->blocks).first(std::min(plan->blocks.size(), method.batches.size()));
    const auto largest = std::ranges::max_element(trained, {}, &BlockPlan::predicted_peak_bytes);
    NF_CHECK(largest->last_unit < model->unit_count(), "trace: the plan has unit {}, {} has {}",
             largest->last_unit + 1, model->name(), model->unit_count());
    step.block = largest - trained.begin() + 1;
    step.batch = largest->batch;
    const LocalNet net(*model, *make_auxiliary_rule(plan->auxiliary_rule), *plan);
    TraceScope recording(meta->pool(), &trace);
    LocalBlock block(meta, net.range(largest->first_unit, largest->last_unit),
                     net.input_sample(largest->first_unit), optimizer, 0);
    block.train({.size = step.batch,
                 .sample = block.sample_shape(),
                 .format = largest->first_unit == 0 ? run.summary.format : std::nullopt},
                {});
    recording.end();
  }
  step.events = trace.events();
  return step;
}

}  // namespace nf::report
