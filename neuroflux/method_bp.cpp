// End-to-end backpropagation at the batch that fits.
#include "engine/timer.h"
#include "neuroflux/method.h"
#include "nn/bp_trainer.h"

namespace nf {
namespace {

class BpMethod : public Method {
 public:
  explicit BpMethod(const MethodInput& input) : model_(input.model) {
    const PlanTimer timer(input.times);
    const BpPlan plan = make_bp_plan(model_, input.plan, input.options.device, input.times);
    planned_.name = "bp";
    planned_.plan_seconds = timer.seconds();
    planned_.fits = plan.fits;
    planned_.minimum_budget_bytes = plan.minimum_budget;
    planned_.full_parameters = model_.parameter_count();
    if (!plan.fits) return;
    planned_.batches = {plan.batch};
    planned_.predicted_peak_bytes = plan.predicted_peak_bytes;
    planned_.predicted_seconds = plan.time.total();
    planned_.parameters = planned_.full_parameters;
    planned_.flops = model_.flops(model_.input_shape(1));
  }

  void trace(const ContextPtr& meta, const nn::OptimizerOptions& optimizer,
             MemoryTrace& trace) const override {
    trace.set_stage(describe(stage()));
    nn::BpTrainer trainer(meta, model_, optimizer, 0);
    trainer.train(nullptr, nullptr, batch(), {});
  }

  void run(const MethodRun& run, MethodSummary& summary) const override {
    summary.weights = "bp.safetensors";
    describe_net(model_, run.data).write(run.folder / summary.weights, train(run, summary));
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
    nn::BpTrainer trainer(context, model_, scaled_optimizer(run.training, batch()),
                          run.training.seed);
    const std::unique_ptr<nn::Loader> train = data.train(), validation = data.validation(),
                                      test = data.test();
    const nn::FitObserver observer = fit_observer(run.observer, stage(), trace);
    nn::FitOptions options = fit_options(run.training, batch(), data.train_count());
    options.name = describe(stage());
    const nn::FitResult fitted =
        nn::fit(trainer, *train, validated ? validation.get() : nullptr, options, observer);
    const Timer timer;
    if (data.test_count() > 0)
      summary.test_accuracy =
          nn::evaluate(trainer, *test, batch(), observer.on_evaluated).front().validation_accuracy;
    summary.evaluation_seconds = fitted.evaluation_seconds + timer.seconds();
    summary.train_seconds = fitted.train_seconds;
    summary.total_seconds =
        *summary.plan_seconds + *summary.train_seconds + *summary.evaluation_seconds;
    if (validated)
      summary.validation_accuracy = fitted.epochs.back().outputs.front().validation_accuracy;
    summary.measured_peak_bytes = context->pool().stats().peak_reserved;
    nn::StateDict weights;
    model_.save(weights);
    return weights;
  }

  nn::Model& model_;
};

}  // namespace

std::unique_ptr<Method> plan_bp(const MethodInput& input) {
  return std::make_unique<BpMethod>(input);
}

}  // namespace nf
