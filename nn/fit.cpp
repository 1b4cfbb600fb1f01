#include "nn/fit.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "engine/random.h"

namespace nf::nn {
namespace {

class Stopwatch {
 public:
  void start() { begin_ = Clock::now(); }
  void stop() { seconds_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }
  double seconds() const { return seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_;
  double seconds_ = 0.0;
};

// Sums of one classifier over an epoch.
struct Tally {
  double loss = 0.0;
  std::int64_t correct = 0;
};

void add(std::vector<Tally>& tallies, const StepResults& results, std::int64_t size) {
  tallies.resize(results.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    tallies[i].loss += results[i].loss * static_cast<double>(size);
    tallies[i].correct += results[i].correct;
  }
}

}  // namespace

std::vector<OutputMetrics> evaluate(BatchTrainer& trainer, BatchSource& source, std::int64_t batch,
                                    const std::function<void()>& on_batch) {
  std::vector<Tally> tallies;
  source.start(batch, 0);
  while (const Batch* next = source.next()) {
    add(tallies, trainer.evaluate_batch(*next), next->size);
    if (on_batch) on_batch();
  }
  const std::vector<std::string> names = trainer.outputs();
  const auto count = static_cast<double>(source.count());
  std::vector<OutputMetrics> metrics(tallies.size());
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    metrics[i].name = names[i];
    metrics[i].validation_loss = tallies[i].loss / count;
    metrics[i].validation_accuracy = static_cast<double>(tallies[i].correct) / count;
  }
  return metrics;
}

FitResult fit(BatchTrainer& trainer, BatchSource& train, BatchSource* validation,
              const FitOptions& options, const FitObserver& observer,
              std::vector<EpochMetrics> done) {
  NF_CHECK(options.epochs >= 1, "fit: epochs must be at least 1, got {}", options.epochs);
  NF_CHECK(options.batch >= 1, "fit: the batch must be at least 1, got {}", options.batch);
  NF_CHECK(train.count() >= 1, "fit: the training set is empty");
  const std::int64_t epoch_steps = (train.count() + options.batch - 1) / options.batch;
  const std::int64_t steps = epoch_steps * options.epochs;
  const std::string prefix = options.name.empty() ? "" : options.name + ", ";
  const auto first = static_cast<std::int64_t>(done.size());
  NF_CHECK(first <= options.epochs, "fit: {} epochs are done of {}", first, options.epochs);
  FitResult result{.epochs = std::move(done)};
  for (const EpochMetrics& metrics : result.epochs) {
    result.train_seconds += metrics.train_seconds;
    result.evaluation_seconds += metrics.evaluation_seconds;
  }
  std::int64_t step = first * epoch_steps;
  for (std::int64_t epoch = first + 1; epoch <= options.epochs; ++epoch) {
    EpochMetrics metrics;
    metrics.epoch = epoch;
    std::vector<Tally> tallies;
    std::int64_t seen = 0;
    Stopwatch watch;
    watch.start();
    train.start(options.batch, epoch);
    while (const Batch* batch = train.next()) {
      const StepOptions step_options{.rate_factor = options.schedule.factor(step, steps),
                                     .label_smoothing = options.label_smoothing,
                                     .dropout_key = random_key(options.seed, Purpose::dropout,
                                                               static_cast<std::uint64_t>(step))};
      metrics.learning_rate = trainer.learning_rate() * step_options.rate_factor;
      ++step;
      const auto with_step = [&](const Error& error) {
        return fmt::format("{}epoch {} step {} of {}: {}", prefix, epoch, step, steps,
                           error.what());
      };
      try {
        add(tallies, trainer.train_batch(*batch, step_options), batch->size);
      } catch (const OutOfBudget&) {
        throw;
      } catch (const Diverged& error) {
        throw Diverged(with_step(error));
      } catch (const Error& error) {
        throw Error(with_step(error));
      }
      seen += batch->size;
      watch.stop();
      if (observer.on_step) {
        const double done = watch.seconds();
        const double per_step = done / static_cast<double>(step - (epoch - 1) * epoch_steps);
        observer.on_step({epoch, options.epochs, step, steps, static_cast<double>(seen) / done,
                          per_step * static_cast<double>(steps - step)});
      }
      watch.start();
    }
    watch.stop();
    metrics.train_seconds = watch.seconds();
    metrics.images_per_second = static_cast<double>(seen) / watch.seconds();
    if (validation != nullptr) {
      Stopwatch evaluation;
      evaluation.start();
      metrics.outputs = evaluate(trainer, *validation, options.batch, observer.on_evaluated);
      evaluation.stop();
      for (const OutputMetrics& output : metrics.outputs)
        if (!std::isfinite(output.validation_loss))
          fail_diverged("{}epoch {}: the validation loss of {} is {}", prefix, epoch, output.name,
                        output.validation_loss);
      metrics.evaluation_seconds = evaluation.seconds();
    }
    const std::vector<std::string> names = trainer.outputs();
    metrics.outputs.resize(tallies.size());
    for (std::size_t i = 0; i < tallies.size(); ++i) {
      metrics.outputs[i].name = names[i];
      metrics.outputs[i].train_loss = tallies[i].loss / static_cast<double>(seen);
      metrics.outputs[i].train_accuracy =
          static_cast<double>(tallies[i].correct) / static_cast<double>(seen);
    }
    result.train_seconds += metrics.train_seconds;
    result.evaluation_seconds += metrics.evaluation_seconds;
    if (observer.on_epoch) observer.on_epoch(metrics);
    result.epochs.push_back(std::move(metrics));
    if (observer.after_epoch) observer.after_epoch(result.epochs);
  }
  return result;
}

}  // namespace nf::nn
