// The epoch loop that every method shares: batches in, steps, validation, times told apart.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nn/data/batch_source.h"
#include "nn/schedule.h"
#include "nn/train_step.h"

namespace nf::nn {

/// Something trained batch by batch with one or more classifiers (one per local unit).
class BatchTrainer {
 public:
  virtual ~BatchTrainer() = default;
  /// Names of the classifiers, in the order of the results below.
  virtual std::vector<std::string> outputs() const = 0;
  /// The optimizers' own, before the schedule.
  virtual double learning_rate() const = 0;
  virtual StepResults train_batch(const Batch& batch, const StepOptions& options) = 0;
  virtual StepResults evaluate_batch(const Batch& batch) = 0;
};

struct FitOptions {
  std::int64_t epochs = 1;
  std::int64_t batch = 64;
  Schedule schedule;
  double label_smoothing = 0.0;
  std::uint64_t seed = 0;
  std::string name = {};  ///< what is being trained, for messages
};

/// One classifier over one epoch.
struct OutputMetrics {
  std::string name;
  double train_loss = 0.0;
  double train_accuracy = 0.0;       ///< fraction, while training
  double validation_loss = 0.0;      ///< 0 without validation data
  double validation_accuracy = 0.0;  ///< fraction
};

struct EpochMetrics {
  std::int64_t epoch = 0;      ///< from 1
  double learning_rate = 0.0;  ///< of the last step
  double train_seconds = 0.0;
  double evaluation_seconds = 0.0;
  double images_per_second = 0.0;
  std::vector<OutputMetrics> outputs;
};

struct StepProgress {
  std::int64_t epoch = 0;  ///< from 1
  std::int64_t epochs = 0;
  std::int64_t step = 0;  ///< from 1, over all epochs
  std::int64_t steps = 0;
  double images_per_second = 0.0;  ///< since the epoch began
  double seconds_left = 0.0;       ///< of training steps, at the present rate
};

/// Called on the training thread; the time they take is not counted as training.
struct FitObserver {
  std::function<void(const StepProgress&)> on_step;
  std::function<void(const EpochMetrics&)> on_epoch;
  std::function<void()> on_evaluated = {};  ///< after each batch of validation data
  /// After on_epoch, with all epochs so far: the trainer can be saved as it is.
  std::function<void(const std::vector<EpochMetrics>&)> after_epoch = {};
};

struct FitResult {
  double train_seconds = 0.0;
  double evaluation_seconds = 0.0;
  std::vector<EpochMetrics> epochs;
};

/// Trains for `epochs` passes over `train` and evaluates on `validation` (may be null) after each.
/// With `done`, what an earlier call told of its first epochs, it goes on after these: the trainer
/// must be as it was then, and what follows has the same bits.
/// The learning rate of step s of S is the optimizers' own times schedule.factor(s, S).
/// Throws Error naming epoch and step when a step throws one (a fault of a kernel), Diverged where
/// it is that (a loss that is not finite), and Diverged naming epoch and classifier when a
/// validation loss is not finite. OutOfBudget passes through as it is.
FitResult fit(BatchTrainer& trainer, BatchSource& train, BatchSource* validation,
              const FitOptions& options, const FitObserver& observer = {},
              std::vector<EpochMetrics> done = {});

/// One pass in evaluation mode: mean loss and accuracy per classifier. `on_batch` is called after
/// every batch.
std::vector<OutputMetrics> evaluate(BatchTrainer& trainer, BatchSource& source, std::int64_t batch,
                                    const std::function<void()>& on_batch = {});

}  // namespace nf::nn
