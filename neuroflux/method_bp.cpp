// End-to-end backpropagation: at the batch that fits, in micro-batches, or with activations
// computed again.
#include <algorithm>

#include "engine/timer.h"
#include "neuroflux/method.h"
#include "neuroflux/saved_net.h"
#include "neuroflux/whole_net_plan.h"

namespace nf {
namespace {

class BpMethod : public Method {
 public:
  BpMethod(const char* name, WholeNetMethod method, const MethodInput& input)
      : model_(input.model), format_(input.plan.format) {
    const PlanTimer timer(input.times);
    plan_ = make_whole_net_plan(method, model_, input.plan, input.options.device, input.times);
    planned_.name = name;
    planned_.plan_seconds = timer.seconds();
    planned_.fits = plan_.fits;
    planned_.minimum_budget_bytes = plan_.minimum_budget;
    planned_.full_parameters = model_.parameter_count();
    if (method != WholeNetMethod::accumulate)
      planned_.update =
          nn::update_moment(input.options.training.optimizer, nn::UpdateMoment::together);
    if (!plan_.fits) return;
    planned_.batches = {plan_.batch};
    if (plan_.micro_batch > 0) planned_.micro_batch = plan_.micro_batch;
    for (const std::int64_t first : plan_.segments) planned_.segments.push_back(first + 1);
    planned_.predicted_peak_bytes = plan_.predicted_peak_bytes;
    planned_.predicted_seconds = plan_.time.total();
    planned_.parameters = planned_.full_parameters;
    planned_.flops = model_.flops(model_.input_shape(1));
  }

  void trace(const ContextPtr& meta, const nn::OptimizerOptions& optimizer,
             MemoryTrace& trace) const override {
    trace.set_stage(describe(stage()));
    make_trainer(plan_, meta, model_, optimizer, 0)
        ->train({.size = batch(), .sample = model_.options().input, .format = format_}, {});
  }

  void run(const MethodRun& run, MethodSummary& summary) const override {
    const nn::StateDict weights = train(run, summary);
    summary.weights = planned_.name + ".safetensors";
    describe_net(model_, run.data.transform()).write(run.folder / summary.weights, weights);
    measure_speed(run, model_, summary);
  }

 private:
  Stage stage() const { return {planned_.name, 0, 0}; }
  std::int64_t batch() const { return planned_.batches.front(); }

  nn::StateDict train(const MethodRun& run, MethodSummary& summary) const {
    const nn::TrainingData& data = run.data;
    const bool validated = data.validation_count() > 0;
    const ContextPtr context = Context::create(run.device);
    TraceScope trace(context->pool(), run.observer.trace);
    if (run.observer.trace != nullptr) run.observer.trace->set_stage(describe(stage()));
    const std::unique_ptr<nn::WholeNetTrainer> trainer = make_trainer(
        plan_, context, model_, scaled_optimizer(run.training, batch()), run.training.seed);
    const nn::SampleForm form = format_ ? nn::SampleForm::pixels : nn::SampleForm::values;
    const std::unique_ptr<nn::Loader> train = data.train(form), validation = data.validation(form),
                                      test = data.test(form);
    TrainingState state;
    if (run.continuation.from != nullptr) state = *run.continuation.from;
    if (!state.epochs.empty()) trainer->restore(state.weights, state.optimizer);
    const auto peak = [&, before = state.partial.measured_peak_bytes] {
      return std::max(before, context->pool().stats().peak_reserved);
    };
    nn::FitObserver observer = fit_observer(run.observer, stage(), trace);
    if (run.continuation.save)
      observer.after_epoch = [&](const std::vector<nn::EpochMetrics>& epochs) {
        state.epochs = epochs;
        trainer->save(state.weights, state.optimizer);
        state.partial.measured_peak_bytes = peak();
        run.continuation.save(state);
      };
    nn::FitOptions options = fit_options(run.training, batch(), data.train_count());
    options.name = describe(stage());
    const nn::FitResult fitted = nn::fit(*trainer, *train, validated ? validation.get() : nullptr,
                                         options, observer, std::move(state.epochs));
    const Timer timer;
    if (data.test_count() > 0) {
      if (run.observer.on_phase) run.observer.on_phase(stage(), "testing");
      summary.test_accuracy =
          nn::evaluate(*trainer, *test, batch(), observer.on_evaluated).front().validation_accuracy;
    }
    summary.evaluation_seconds = fitted.evaluation_seconds + timer.seconds();
    summary.train_seconds = fitted.train_seconds;
    summary.total_seconds = *summary.plan_seconds + run.elapsed_seconds();
    if (validated)
      summary.validation_accuracy = fitted.epochs.back().outputs.front().validation_accuracy;
    summary.measured_peak_bytes = peak();
    nn::StateDict weights;
    model_.save(weights);
    return weights;
  }

  nn::Model& model_;
  std::optional<nn::PixelFormat> format_;
  WholeNetPlan plan_;
};

}  // namespace

std::unique_ptr<Method> plan_bp(const MethodInput& input) {
  return std::make_unique<BpMethod>("bp", WholeNetMethod::bp, input);
}

std::unique_ptr<Method> plan_bp_accumulate(const MethodInput& input) {
  return std::make_unique<BpMethod>("bp-accumulate", WholeNetMethod::accumulate, input);
}

std::unique_ptr<Method> plan_bp_checkpoint(const MethodInput& input) {
  return std::make_unique<BpMethod>("bp-checkpoint", WholeNetMethod::checkpoint, input);
}

}  // namespace nf
