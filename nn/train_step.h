// One optimisation step of a network that ends in a classifier: the same code for the whole net
// under backpropagation, for one unit under local learning, and for the planner on the meta device.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/memory/recycled.h"
#include "engine/ops/softmax_cross_entropy.h"
#include "nn/module.h"
#include "nn/optimizer.h"

namespace nf::nn {

/// What one loss trains: `body` then `head`, updated by `optimizer`. Nothing is owned.
struct Trainable {
  std::string_view name;
  Module* body = nullptr;
  Module* head = nullptr;  ///< null: the body gives the logits
  Optimizer* optimizer = nullptr;
};

struct StepOptions {
  double rate_factor = 1.0;  ///< on the optimizer's learning rate
  double label_smoothing = 0.0;
  std::uint64_t dropout_key = 0;
};

struct StepResult {
  double loss = 0.0;         ///< mean over the batch
  std::int64_t correct = 0;  ///< samples classified rightly
};
/// One for each loss.
using StepResults = RecycledVector<StepResult>;

/// Gradients end with their step, also with one that throws: the next would add to them.
class GradientScope {
 public:
  explicit GradientScope(Optimizer& optimizer) : optimizer_(optimizer) {}
  ~GradientScope();
  GradientScope(const GradientScope&) = delete;
  GradientScope& operator=(const GradientScope&) = delete;

 private:
  Optimizer& optimizer_;
};

/// What a step's backward pass calls: makes the update of finished parameters where the optimizer
/// is immediate(), else empty. Optimizer::step with the same factor is to follow.
LeafListener update_finished(Optimizer& optimizer, double factor);

/// The loss and the correct count on the host. Throws Diverged naming `trainable` and the learning
/// rate when the loss is not finite.
StepResult read_loss(const Trainable& trainable, const CrossEntropy& result,
                     const StepOptions& options);

/// Forward, loss, backward: adds `share` times the gradient of the mean loss to the gradients of
/// the parameters. Takes `input` over, leaves `output` and throws as train_step does, but gradients
/// stay where they are, unless `listener` takes them: a GradientScope of the caller's must hold.
StepResult add_gradients(const Trainable& trainable, Tensor input, const Tensor& labels,
                         const StepOptions& options, double share = 1.0, Tensor* output = nullptr,
                         const LeafListener& listener = {});

/// Forward, loss, backward, update; gradients are freed. `input` is taken over, so that its memory
/// goes as soon as the backward has used it; no gradient reaches it. The detached output of the
/// body is left in `output` where one is given.
/// Throws Diverged naming `trainable` when the loss is not finite, OutOfBudget. After any throw no
/// gradient is left and no parameter has changed, but for those, and their state, that an immediate
/// update reached before a backward pass ran out of memory; running statistics of batch norms may
/// have moved, as the forward pass does that.
StepResult train_step(const Trainable& trainable, Tensor input, const Tensor& labels,
                      const StepOptions& options, Tensor* output = nullptr);

/// Device memory of one captured step.
struct StepSlot {
  UpdateScalars decaying, others;  ///< read: the optimizer's numbers
  float loss = 0;                  ///< written
  std::int32_t correct = 0;        ///< written
  float norm = 0;                  ///< written where gradients are clipped
};

/// The calls of train_step on a device that is capturing. They ask for the memory that train_step
/// asks for. A replay reads dropout's key and the optimizer's numbers from device memory and leaves
/// loss, correct and norm there; where loss or norm is not finite it changes no parameter.
void capture_step(const Trainable& trainable, Tensor input, const Tensor& labels,
                  double label_smoothing, const std::uint64_t* dropout_key, StepSlot* slot,
                  Tensor* output = nullptr);

/// Throws Diverged naming `trainable` unless the loss is finite.
void check_loss(const Trainable& trainable, double loss, const StepOptions& options);

/// Forward with running statistics; nothing is recorded. Without labels only `output` is computed.
StepResult evaluate_step(const Trainable& trainable, Tensor input, const Tensor& labels,
                         Tensor* output = nullptr);

}  // namespace nf::nn
