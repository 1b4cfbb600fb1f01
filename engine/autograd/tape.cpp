#include "engine/autograd/tape.h"

#include <algorithm>
#include <optional>
#include <set>

namespace nf {

const Tensor& SavedTensor::get(std::string_view op) const {
  NF_CHECK(!tensor_ || tensor_.version() == version_,
           "{}: a tensor saved for the backward pass {} was edited in place (version {}, saved {})",
           op, tensor_.shape().str(), tensor_.version(), version_);
  return tensor_;
}

Tensor Gradients::take(std::uint64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return {};
  Tensor gradient = std::move(found->second);
  pending_.erase(found);
  return gradient;
}

Tensor Gradients::find(const Node::Input& input) const {
  if (input.leaf) return input.leaf.grad();
  const auto found = pending_.find(input.id);
  return found == pending_.end() ? Tensor() : found->second;
}

void Gradients::put(const Node::Input& input, Tensor gradient) {
  if (input.leaf)
    input.leaf.set_grad(std::move(gradient));
  else
    pending_[input.id] = std::move(gradient);
}

Gradients::Slot Gradients::slot(std::size_t index) {
  const Node::Input& input = node_->inputs_[index];
  const Category category = input.leaf ? Category::gradient : Category::activation_gradient;
  if (Tensor present = find(input)) {
    put(input, {});
    if (!present.unique()) present = present.clone(category);
    put(input, present);
    return {present, GradMode::accumulate};
  }
  Tensor fresh = Tensor::empty(context_, input.shape, input.dtype, category);
  put(input, fresh);
  return {fresh, GradMode::overwrite};
}

void Gradients::give(std::size_t index, Tensor gradient) {
  const Node::Input& input = node_->inputs_[index];
  Tensor present = find(input);
  if (!present) {
    // A leaf outlives the pass: what it keeps must not be shared with what is still in flight.
    if (input.leaf && !gradient.unique()) gradient = gradient.clone(Category::gradient);
    put(input, std::move(gradient));
    return;
  }
  put(input, {});
  if (!present.unique()) std::swap(present, gradient);
  if (!present.unique()) present = present.clone(Category::activation_gradient);
  present.backend().axpy(1.0, gradient.view(), present.mutable_view());
  put(input, std::move(present));
}

// A leaf that the node uses twice, or that brings a gradient along, gets a whole one.
bool Gradients::taken_by_rows(const Node::Input& input) const {
  if (!listener_.rows || !input.leaf || input.leaf.grad()) return false;
  const auto is_it = [&](const auto& other) { return other.id == input.id; };
  return std::ranges::count_if(node_->inputs_, is_it) == 1 &&
         std::ranges::any_of(finished_, [&](const Tensor& leaf) { return leaf.id() == input.id; });
}

void Gradients::by_rows(std::size_t index, std::int64_t rows,
                        const std::function<void(std::int64_t begin, Slot slot)>& compute) {
  const Node::Input& input = node_->inputs_[index];
  const std::int64_t all = input.shape[0];
  NF_CHECK(rows >= 1, "gradients: {} rows at a time", rows);
  if (taken_by_rows(input)) {
    for (std::int64_t begin = 0; begin < all; begin += rows) {
      const Tensor gradient =
          Tensor::empty(context_, input.shape.with_batch(std::min(rows, all - begin)), input.dtype,
                        Category::gradient);
      compute(begin, {gradient, GradMode::overwrite});
      listener_.rows(input.leaf, begin, gradient);
    }
    return;
  }
  const Slot whole = slot(index);
  for (std::int64_t begin = 0; begin < all; begin += rows)
    compute(begin, {whole.tensor.rows(begin, std::min(begin + rows, all)), whole.mode});
}

bool Tape::wanted(const Tape* tape, std::initializer_list<const Tensor*> inputs) {
  if (tape == nullptr) return false;
  for (const Tensor* input : inputs)
    if (input->requires_grad()) return true;
  return false;
}

void Tape::record(std::unique_ptr<Node> node, std::initializer_list<const Tensor*> inputs,
                  const Tensor& output) {
  node->inputs_.reserve(inputs.size());
  for (const Tensor* input : inputs) {
    const bool needed = input->requires_grad();
    const bool present = static_cast<bool>(*input);
    node->inputs_.push_back({input->id(), present ? input->shape() : Shape{},
                             present ? input->dtype() : DType::f32, needed,
                             needed && input->is_leaf() ? *input : Tensor()});
  }
  node->unit_ = memory_tags().unit;
  node->output_ = output.id();
  output.mark_computed();
  nodes_.push_back(std::move(node));
}

namespace {

struct Emptied {
  Tape& tape;
  ~Emptied() { tape.clear(); }
};

}  // namespace

/// How many nodes that are still to come use each leaf.
class Tape::LeafUses {
 public:
  explicit LeafUses(const Nodes& nodes) {
    for (const auto& node : nodes)
      for (const Node::Input& input : node->inputs_)
        if (input.leaf) ++uses_[input.id];
  }

  /// Leaves that `node` was the last to use.
  RecycledVector<Tensor> finished_by(const Node& node) {
    RecycledVector<Tensor> leaves;
    for (const Node::Input& input : node.inputs_)
      if (input.leaf && --uses_[input.id] == 0) leaves.push_back(input.leaf);
    return leaves;
  }

 private:
  RecycledHashMap<std::uint64_t, std::int64_t> uses_;
};

void Tape::backward(Tensor output, Tensor seed, const LeafListener& listener) {
  NF_CHECK(output.requires_grad() && !output.is_leaf(),
           "backward: the output {} was not computed from anything that requires a gradient",
           output.shape().str());
  if (seed) {
    NF_CHECK(seed.shape() == output.shape() && seed.dtype() == output.dtype(),
             "backward: the seed must be {} {} as the output, got {} {}", to_string(output.dtype()),
             output.shape().str(), to_string(seed.dtype()), seed.shape().str());
    NF_CHECK(seed.context() == output.context(),
             "backward: the seed must live in the output's context (output on {}, seed on {})",
             to_string(output.context()->device()), to_string(seed.context()->device()));
  }
  const PhaseScope phase("backward");
  // Half a record is of no use, and would keep memory.
  const Emptied emptied{*this};
  Gradients gradients(output.context(), listener);
  if (!seed) {
    gradients.unseeded_ = output.id();
    seed = Tensor::full(output.context(), output.shape(), 1.0, output.dtype(),
                        Category::activation_gradient);
  }
  gradients.pending_[output.id()] = std::move(seed);
  output = Tensor();
  std::optional<LeafUses> uses;
  if (listener.finished || listener.rows) uses.emplace(nodes_);
  while (!nodes_.empty()) {
    std::unique_ptr<Node> node = std::move(nodes_.back());
    nodes_.pop_back();
    if (uses) gradients.finished_ = uses->finished_by(*node);
    const UnitScope unit(node->unit());
    // Without a gradient nothing downstream of it reached the output.
    if (Tensor dy = gradients.take(node->output_)) {
      const OpScope op(node->name());
      gradients.node_ = node.get();
      node->backward(std::move(dy), gradients);
    }
    node.reset();  // what it saved goes first: values of leaves are among it
    RecycledVector<Tensor>& leaves = gradients.finished_;
    std::erase_if(leaves, [](const Tensor& leaf) { return !leaf.grad(); });
    if (listener.finished && !leaves.empty()) listener.finished(leaves);
  }
}

std::int64_t Tape::saved_bytes() const {
  std::set<const void*> seen;
  std::int64_t bytes = 0;
  for (const auto& node : nodes_)
    for (const SavedTensor& saved : node->saved())
      if (saved.tensor() && seen.insert(saved.tensor().view().data).second)
        bytes += saved.tensor().bytes();
  return bytes;
}

}  // namespace nf
