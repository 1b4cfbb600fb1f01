// Updates parameters from their gradients. State is allocated at once, so memory is constant.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "nn/module.h"

namespace nf::nn {

enum class OptimizerKind : std::uint8_t { sgd, adamw };

constexpr const char* to_string(OptimizerKind kind) {
  return kind == OptimizerKind::sgd ? "sgd" : "adamw";
}
/// Throws Error naming the value and the known kinds.
OptimizerKind parse_optimizer(std::string_view name);

/// When a training step updates parameters.
enum class UpdateMoment : std::uint8_t {
  together,   ///< behind the backward pass, when all gradients are there
  immediate,  ///< each within it as soon as its gradient is finished, which is freed at once
};

constexpr const char* to_string(UpdateMoment moment) {
  return moment == UpdateMoment::together ? "together" : "immediate";
}
/// Throws Error naming the value and the known moments.
UpdateMoment parse_update_moment(std::string_view name);

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::sgd;
  double learning_rate = 0.05;
  double momentum = 0.9;  ///< sgd; 0 keeps no state
  bool nesterov = false;  ///< sgd
  double weight_decay = 5e-4;
  double beta1 = 0.9;    ///< adamw
  double beta2 = 0.999;  ///< adamw
  double eps = 1e-8;     ///< adamw
  /// Whether weight decay also applies to biases and batch norms, as PyTorch does by default.
  bool decay_norm_and_bias = true;
  /// Gradients of all parameters together are scaled down to this L2 norm; 0: never.
  double max_gradient_norm = 0.0;
  /// Whether a step looks for infinities and NaNs in all gradients first, for which it waits for
  /// the device.
  bool check_finite = false;
  /// The results have the same bits either way. None: what suits the trainer: local units update
  /// immediately, trainers of whole nets together.
  std::optional<UpdateMoment> update = std::nullopt;
};

/// What a trainer does that takes `otherwise` where nothing is asked for. To clip gradients or to
/// check them takes all of them, and so does `together`.
UpdateMoment update_moment(const OptimizerOptions& options, UpdateMoment otherwise);

/// Throws Error naming the option, its rule and its value.
void check_optimizer_options(const OptimizerOptions& options);

/// Device memory that a captured update reads and writes.
struct CapturedUpdate {
  const UpdateScalars* decaying = nullptr;  ///< of parameters that decay
  const UpdateScalars* others = nullptr;
  const float* loss = nullptr;  ///< nothing is updated where it is not finite
  float* norm = nullptr;        ///< the gradients' norm is left there, where they are clipped
};

class Optimizer {
 public:
  /// Allocates the state beside each parameter. The parameters must be materialized and outlive
  /// the optimizer. Throws Error for bad options or an unfit parameter, OutOfBudget.
  Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options);

  /// One update at learning rate options().learning_rate * factor, of parameters that the present
  /// step has not yet updated. Throws, before it changes a parameter, Error when one has no
  /// gradient, Diverged when the norm to clip is not finite or, with check_finite, a gradient is
  /// not: then it names the first such parameter. OutOfBudget.
  void step(double factor = 1.0);
  /// The calls of one update on a device that is capturing: each replay makes the update whose
  /// numbers it finds, none where loss or norm is not finite. Not before the first step().
  void capture_step(const CapturedUpdate& update);
  /// Whether the parts of a step may be made by update_now: UpdateMoment::immediate, and nothing
  /// that takes all gradients.
  bool immediate() const {
    return update_moment(options_, UpdateMoment::together) == UpdateMoment::immediate;
  }
  /// A part of the step that step() or capture_step(), with the same arguments, completes: updates
  /// those parameters whose values are given, to the same bits, and frees their gradients. Other
  /// tensors are left alone. Throws Error unless immediate().
  void update_now(std::span<const Tensor> values, double factor);
  void capture_now(std::span<const Tensor> values, const CapturedUpdate& update);
  /// The same of the rows of a value's first dimension from `begin` on that have this gradient, in
  /// order until all are updated; the gradient is not freed.
  void update_rows_now(const Tensor& value, std::int64_t begin, const Tensor& gradient,
                       double factor);
  void capture_rows_now(const Tensor& value, std::int64_t begin, const Tensor& gradient,
                        const CapturedUpdate& update);

  /// The numbers of the next update: for parameters that decay, for the others.
  std::array<UpdateScalars, 2> scalars(double factor) const;
  /// Counts an update that a replay made. Throws Diverged, as step() does, where the norm that the
  /// replay left is not finite: then there was none.
  void count_replayed(double norm);
  /// Frees all gradients. A step that was begun by update_now and not completed is forgotten.
  void zero_grad();

  const OptimizerOptions& options() const { return options_; }
  /// Updates made so far.
  std::int64_t steps() const { return steps_; }

  /// Adds the state under momentum.NAME (sgd), exp_avg.NAME and exp_avg_sq.NAME (adamw) and the
  /// count of steps under steps.NAME of the first parameter: so several optimizers share a dict.
  void save_state(StateDict& state) const;
  /// Continues from a saved state, bit for bit. Throws Error for a name that is missing or has
  /// another shape, in which case nothing is changed.
  void load_state(const StateDict& state);

 private:
  struct Slot {
    Parameter* parameter;
    Tensor first;                   // momentum, or AdamW's mean of gradients
    Tensor second;                  // AdamW's mean of squares
    std::int64_t rows_updated = 0;  // of the first dimension, by the present step
    bool updated() const { return rows_updated == parameter->shape[0]; }
  };
  /// A parameter to update, or rows of it.
  struct Part {
    bool decays;
    View value;
    ConstView gradient;
    View first, second;
  };
  struct NamedState {
    std::string name;
    Tensor tensor;
  };

  void check_factor(double factor) const;
  void check_ready(double factor) const;
  void check_gradients() const;
  void complete(double factor, const CapturedUpdate* captured);
  void update_part(std::span<const Tensor> values, double factor, const CapturedUpdate* captured);
  void update_rows(const Tensor& value, std::int64_t begin, const Tensor& gradient, double factor,
                   const CapturedUpdate* captured);
  Part part_of(Slot& slot) const;
  void update(std::span<const Part> parts, double factor, const CapturedUpdate* captured);
  void clip_gradients(float* kept_norm);
  void check_norm(double norm) const;
  std::string steps_name() const;
  std::vector<NamedState> state_tensors() const;

  std::vector<Slot> slots_;
  OptimizerOptions options_;
  std::int64_t steps_ = 0;
};

}  // namespace nf::nn
