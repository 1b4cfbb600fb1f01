// What every layer and net is: a function with named parameters that describes itself (shapes,
// counts, FLOPs) without any memory, and gets some only when it is materialized.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/autograd/tape.h"
#include "engine/context.h"
#include "engine/shape.h"
#include "nn/init.h"
#include "nn/state_dict.h"

namespace nf::nn {

/// How a forward pass is run.
struct Pass {
  Tape* tape = nullptr;           ///< records for a backward pass; null: nothing is kept
  bool training = false;          ///< batch statistics and dropout, or running statistics
  std::uint64_t dropout_key = 0;  ///< of this step; each dropout derives its own by its name
  /// In device memory, in place of dropout_key: of a captured step, which is replayed with others.
  const std::uint64_t* stored_dropout_key = nullptr;
  bool update_statistics = true;  ///< false: a pass that recomputes leaves running ones alone
};

struct Parameter {
  std::string name;  ///< full name, as in a PyTorch state dict
  Shape shape;       ///< engine layout
  Initializer init{};
  bool buffer = false;  ///< running statistics: saved, but no gradient
  bool decay = true;    ///< false for biases and batch norms, see OptimizerOptions
  Tensor value{};       ///< empty until materialized
  bool folded = false;  ///< the value has a batch norm in it, see Module::fold_batch_norms
  /// Of a folded value: which of the device's layouts it is in, 0 for that of `shape`.
  std::int64_t layout = 0;

  std::int64_t numel() const { return shape.numel(); }
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Throws Error when not materialized or when x does not fit, OutOfBudget.
  virtual Tensor forward(const Pass& pass, const Tensor& x) = 0;
  /// Shape of the output for an input of shape x, batch included. Throws Error when x does not fit.
  virtual Shape output_shape(const Shape& x) const = 0;
  /// Of one forward pass over x: two per multiply-add, convolutions and linear layers only.
  virtual std::int64_t flops(const Shape& x) const = 0;
  /// Of the layers that read x itself: what a local unit saves, as it needs no gradient of x. All
  /// of flops() unless a module made of others knows better.
  virtual std::int64_t first_flops(const Shape& x) const { return flops(x); }
  /// Calls `visitor` for each parameter and buffer, in PyTorch's order.
  virtual void visit(const std::function<void(Parameter&)>& visitor) = 0;
  /// Makes one convolution of each convolution and the batch norm behind it, for inference: forward
  /// then gives the same but for rounding, in less time, and what batch norms hold is given back.
  /// Weights move into the device's favourite layout as images of a new shape come by.
  /// A net so changed can be neither trained nor saved; release() makes it what it was. Nothing by
  /// default: a module made of others hands it on. Throws Error when not materialized.
  virtual void fold_batch_norms() {}

  /// Those that are trained. Pointers stay valid as long as the module.
  std::vector<Parameter*> parameters();
  /// Those that are trained and the buffers.
  std::vector<Parameter*> all();
  /// Elements of all that is trained.
  std::int64_t parameter_count() const;
  /// Elements of all buffers.
  std::int64_t buffer_count() const;

  /// Brings all parameters onto the device with their first values, which depend on the seed and
  /// on each parameter's name alone. On a meta device no value is computed. Throws Error when
  /// already materialized; after OutOfBudget nothing is held.
  void materialize(const ContextPtr& context, std::uint64_t seed);
  /// The same with values from `state`. Throws Error like load, before anything is allocated.
  void materialize(const ContextPtr& context, const StateDict& state);
  /// Gives all device memory back, gradients included.
  void release();
  /// Whether everything is on a device (true for a module without parameters).
  bool materialized() const;

  /// Adds the values of all parameters and buffers. Throws Error when not materialized.
  void save(StateDict& state) const;
  /// Takes the values by name; other names are ignored. Throws Error for a name that is missing or
  /// has another shape, in which case nothing is changed.
  void load(const StateDict& state);

 private:
  // visit() is not const, since it hands out what may be changed; reading through it is.
  void read(const std::function<void(const Parameter&)>& reader) const;
  void place(const ContextPtr& context, const std::function<void(Parameter&)>& set_value);
};

}  // namespace nf::nn
