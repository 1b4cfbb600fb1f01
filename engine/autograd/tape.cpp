#include "engine/autograd/tape.h"

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

bool Tape::wanted(const Tape* tape, std::initializer_list<const Tensor*> inputs) {
  if (tape == nullptr) return false;
  for (const Tensor* input : inputs)
    if (input->requires_grad()) return true;
  return false;
}

void Tape::record(std::unique_ptr<Node> node, std::initializer_list<const Tensor*> inputs,
                  const Tensor& output) {
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
  explicit LeafUses(const std::vector<std::unique_ptr<Node>>& nodes) {
    for (const auto& node : nodes)
      for (const Node::Input& input : node->inputs_)
        if (input.leaf) ++uses_[input.id];
  }

  /// Leaves that `node` was the last to use.
  std::vector<Tensor> finished_by(const Node& node) {
    std::vector<Tensor> leaves;
    for (const Node::Input& input : node.inputs_)
      if (input.leaf && --uses_[input.id] == 0) leaves.push_back(input.leaf);
    return leaves;
  }

 private:
  std::unordered_map<std::uint64_t, std::int64_t> uses_;
};

void Tape::backward(Tensor output, Tensor seed, const FinishedLeaves& finished) {
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
  Gradients gradients(output.context());
  if (!seed) {
    gradients.unseeded_ = output.id();
    seed = Tensor::full(output.context(), output.shape(), 1.0, output.dtype(),
                        Category::activation_gradient);
  }
  gradients.pending_[output.id()] = std::move(seed);
  output = Tensor();
  std::optional<LeafUses> uses;
  if (finished) uses.emplace(nodes_);
  while (!nodes_.empty()) {
    std::unique_ptr<Node> node = std::move(nodes_.back());
    nodes_.pop_back();
    std::vector<Tensor> leaves;
    if (uses) leaves = uses->finished_by(*node);
    const UnitScope unit(node->unit());
    // Without a gradient nothing downstream of it reached the output.
    if (Tensor dy = gradients.take(node->output_)) {
      const OpScope op(node->name());
      gradients.node_ = node.get();
      node->backward(std::move(dy), gradients);
    }
    node.reset();  // what it saved goes first: values of leaves are among it
    std::erase_if(leaves, [](const Tensor& leaf) { return !leaf.grad(); });
    if (!leaves.empty()) finished(leaves);
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
