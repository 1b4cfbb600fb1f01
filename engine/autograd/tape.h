// Reverse-mode differentiation on an explicit, append-only record of what was computed.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "engine/memory/recycled.h"
#include "engine/tensor.h"

namespace nf {

/// A tensor kept for the backward pass, and the version it had then.
class SavedTensor {
 public:
  SavedTensor() = default;
  explicit SavedTensor(const Tensor& tensor) : tensor_(tensor), version_(tensor.version()) {}

  /// Throws Error when the tensor was edited in place since it was saved.
  const Tensor& get(std::string_view op) const;
  /// Gives the memory back before the node itself goes.
  void release() { tensor_ = Tensor(); }
  const Tensor& tensor() const { return tensor_; }

 private:
  Tensor tensor_;
  std::uint64_t version_ = 0;
};

class Gradients;

/// Takes over what a backward pass wants nothing more of, while it goes on. Either may be empty.
struct LeafListener {
  /// Leaves with finished gradients, all that the pass adds to them included; no value is read any
  /// more. So values may be changed, and gradients may go.
  std::function<void(std::span<const Tensor> leaves)> finished = {};
  /// The same of rows of a leaf's first dimension, from row `begin` on, in order until all have
  /// come; their gradient is kept nowhere else, so that of a leaf unknown to the listener is lost.
  std::function<void(const Tensor& leaf, std::int64_t begin, const Tensor& gradient)> rows = {};
};

/// One computed operator. A subclass keeps its options; tensors it needs go through save(), so
/// that everything a tape holds on to can be seen in saved().
class Node : public RecycledObject {
 public:
  /// The name is a string literal, or stays as one does.
  explicit Node(std::string_view name) : name_(name) {}
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  std::string_view name() const { return name_; }
  std::string_view unit() const { return unit_; }
  const RecycledVector<SavedTensor>& saved() const { return saved_; }

  /// Turns the output's gradient into those of the inputs. `dy` is the only handle on its memory
  /// when dy.unique(): it may then be overwritten and passed on.
  virtual void backward(Tensor dy, Gradients& gradients) = 0;

 protected:
  void save(const Tensor& tensor) { saved_.emplace_back(tensor); }
  const Tensor& saved_tensor(std::size_t i) const { return saved_[i].get(name_); }
  void release(std::size_t i) { saved_[i].release(); }

 private:
  friend class Tape;
  friend class Gradients;
  struct Input {
    std::uint64_t id;
    Shape shape;
    DType dtype;
    bool needs_gradient;
    Tensor leaf;  // holds parameters only, which live on anyway
  };

  std::string_view name_, unit_;
  RecycledVector<SavedTensor> saved_;
  RecycledVector<Input> inputs_;
  std::uint64_t output_ = 0;
};

/// Where a node puts the gradients of its inputs. Inputs are numbered as they were recorded.
class Gradients {
 public:
  bool wanted(std::size_t input) const { return node_->inputs_[input].needs_gradient; }
  /// Whether the node computed what Tape::backward started from, without a seed: its dy is ones.
  bool from_ones() const { return node_->output_ == unseeded_; }

  struct Slot {
    Tensor tensor;
    GradMode mode;
  };
  /// Memory for the gradient of `input`: fresh and to be overwritten, or to be added to.
  Slot slot(std::size_t input);
  /// Hands over a finished gradient, which may share its memory with others.
  void give(std::size_t input, Tensor gradient);
  /// Has the gradient of `input` computed `rows` rows of the first dimension at a time, from the
  /// first on. Where a listener takes them, only so many are ever there, and the value may be
  /// changed in between: whatever else reads it in this node must have done so.
  void by_rows(std::size_t input, std::int64_t rows,
               const std::function<void(std::int64_t begin, Slot slot)>& compute);

 private:
  friend class Tape;
  Gradients(ContextPtr context, const LeafListener& listener)
      : context_(std::move(context)), listener_(listener) {}

  bool taken_by_rows(const Node::Input& input) const;
  Tensor take(std::uint64_t id);
  Tensor find(const Node::Input& input) const;
  void put(const Node::Input& input, Tensor gradient);

  ContextPtr context_;
  const LeafListener& listener_;
  const Node* node_ = nullptr;
  RecycledVector<Tensor> finished_;  // leaves that the node is the last to use
  std::uint64_t unseeded_ = 0;       // id of the output whose gradient is ones; 0: of none
  RecycledHashMap<std::uint64_t, Tensor> pending_;
};

/// The record, in order of execution. One for a whole net, or one for each local unit.
class Tape {
 public:
  /// Whether an operator on these inputs has to be recorded.
  static bool wanted(const Tape* tape, std::initializer_list<const Tensor*> inputs);

  /// Appends a node that computed `output` from `inputs` (empty ones allowed, never wanted).
  void record(std::unique_ptr<Node> node, std::initializer_list<const Tensor*> inputs,
              const Tensor& output);

  /// Walks the record from its end and empties it, freeing what each node saved as soon as it is
  /// done. Gradients of leaves are added to those they have (overwritten where there are none).
  /// `seed` is the gradient of `output`, ones when empty. Throws Error when `output` does not
  /// depend on a leaf that requires a gradient or the seed does not fit it: then the record stays.
  /// A throw on the way, OutOfBudget say, empties it too; leaves keep the gradients they got.
  /// An output that is moved in goes before the walk begins: its memory may be large.
  /// `listener` is told of leaves behind the last node that uses them, or in its midst.
  void backward(Tensor output, Tensor seed = {}, const LeafListener& listener = {});

  using Nodes = RecycledVector<std::unique_ptr<Node>>;
  const Nodes& nodes() const { return nodes_; }
  void clear() { nodes_.clear(); }
  /// Bytes that saved tensors hold, each memory counted once.
  std::int64_t saved_bytes() const;

 private:
  class LeafUses;

  Nodes nodes_;
};

}  // namespace nf
