// What every method of training derives from the options that they share.
#include <algorithm>
#include <cmath>

#include "neuroflux/local_trainer.h"

namespace nf {

std::string describe(const Stage& stage) {
  return stage.blocks == 0 ? stage.method
                           : fmt::format("{} block {}/{}", stage.method, stage.block, stage.blocks);
}

nn::FitObserver fit_observer(const TrainingObserver& observer, const Stage& stage,
                             TraceScope& trace) {
  return {.on_step =
              [&observer, &trace, stage](const nn::StepProgress& progress) {
                trace.end();
                if (observer.on_step) observer.on_step(stage, progress);
              },
          .on_epoch =
              [&observer, stage](const nn::EpochMetrics& metrics) {
                if (observer.on_epoch) observer.on_epoch(stage, metrics);
              },
          .on_evaluated =
              [&observer, stage] {
                if (observer.on_batch) observer.on_batch(stage);
              }};
}

nn::OptimizerOptions scaled_optimizer(const TrainingOptions& options, std::int64_t batch) {
  nn::OptimizerOptions scaled = options.optimizer;
  scaled.learning_rate *= static_cast<double>(batch) / static_cast<double>(options.reference_batch);
  return scaled;
}

nn::FitOptions fit_options(const TrainingOptions& options, std::int64_t batch,
                           std::int64_t train_count) {
  const double epoch_steps =
      std::ceil(static_cast<double>(train_count) / static_cast<double>(batch));
  const double steps = epoch_steps * static_cast<double>(options.epochs);
  nn::FitOptions fit;
  fit.epochs = options.epochs;
  fit.batch = batch;
  fit.schedule.kind = options.schedule;
  fit.schedule.gamma = options.gamma;
  const double cut_epochs =
      options.step_epochs > 0.0 ? options.step_epochs : static_cast<double>(options.epochs) / 3.0;
  fit.schedule.step_size =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(cut_epochs * epoch_steps)));
  fit.schedule.warmup_steps =
      static_cast<std::int64_t>(std::min(options.warmup_epochs * epoch_steps, steps - 1.0));
  fit.label_smoothing = options.label_smoothing;
  fit.seed = options.seed;
  return fit;
}

}  // namespace nf
