#include "nn/optimizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>

#include "engine/ops/reduce.h"
#include "engine/text.h"

namespace nf::nn {
namespace {

// A count above this has no exact float: it is saved in two digits of this base.
constexpr std::int64_t kStepsBase = std::int64_t{1} << 24;

const HostTensor& find_state(const StateDict& state, const std::string& name, const Shape& shape) {
  const auto found = state.find(name);
  NF_CHECK(found != state.end(), "optimizer: state {} {} is missing", name, shape.str());
  const HostTensor& value = found->second;
  NF_CHECK(value.shape == shape && std::cmp_equal(value.values.size(), shape.numel()),
           "optimizer: state {} must be {}, got {} with {} values", name, shape.str(),
           value.shape.str(), value.values.size());
  return value;
}

std::int64_t parse_steps(const std::string& name, const HostTensor& value) {
  for (const float digit : value.values)
    NF_CHECK(digit >= 0 && digit < static_cast<float>(kStepsBase) && std::floor(digit) == digit,
             "optimizer: state {} must hold whole numbers below {}, got {}", name, kStepsBase,
             digit);
  return static_cast<std::int64_t>(value.values[0]) * kStepsBase +
         static_cast<std::int64_t>(value.values[1]);
}

// Of the first dimension.
View rows_of(const View& view, std::int64_t begin, std::int64_t count) {
  if (!view) return view;
  const std::int64_t row_bytes = view.shape.sample().numel() * size_of(view.dtype);
  return {static_cast<std::byte*>(view.data) + begin * row_bytes, view.dtype,
          view.shape.with_batch(count)};
}

}  // namespace

OptimizerKind parse_optimizer(std::string_view name) {
  static const std::array<std::string, 2> names{"sgd", "adamw"};
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<OptimizerKind>(i);
  fail("optimizer: must be sgd or adamw, got \"{}\"; did you mean {}?", name,
       nearest_name(name, names));
}

UpdateMoment parse_update_moment(std::string_view name) {
  static const std::array<std::string, 2> names{"together", "immediate"};
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<UpdateMoment>(i);
  fail("update: must be together or immediate, got \"{}\"; did you mean {}?", name,
       nearest_name(name, names));
}

UpdateMoment update_moment(const OptimizerOptions& options, UpdateMoment otherwise) {
  if (options.max_gradient_norm > 0 || options.check_finite) return UpdateMoment::together;
  return options.update.value_or(otherwise);
}

void check_optimizer_options(const OptimizerOptions& options) {
  const auto finite = [](double value) { return value >= 0 && std::isfinite(value); };
  NF_CHECK(finite(options.learning_rate) && options.learning_rate > 0,
           "optimizer: learning_rate must be above 0, got {}", options.learning_rate);
  NF_CHECK(options.momentum >= 0 && options.momentum < 1,
           "optimizer: momentum must be in [0, 1), got {}", options.momentum);
  NF_CHECK(!options.nesterov || options.momentum > 0,
           "optimizer: nesterov needs a momentum above 0, got {}", options.momentum);
  NF_CHECK(finite(options.weight_decay), "optimizer: weight_decay must not be negative, got {}",
           options.weight_decay);
  NF_CHECK(options.beta1 >= 0 && options.beta1 < 1, "optimizer: beta1 must be in [0, 1), got {}",
           options.beta1);
  NF_CHECK(options.beta2 >= 0 && options.beta2 < 1, "optimizer: beta2 must be in [0, 1), got {}",
           options.beta2);
  NF_CHECK(finite(options.max_gradient_norm),
           "optimizer: max_gradient_norm must not be negative, got {}", options.max_gradient_norm);
  NF_CHECK(finite(options.eps) && options.eps > 0, "optimizer: eps must be above 0, got {}",
           options.eps);
}

Optimizer::Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options)
    : options_(options) {
  check_optimizer_options(options_);
  NF_CHECK(!parameters.empty(), "optimizer: there is no parameter to train");
  const OpScope op("optimizer");
  for (Parameter* parameter : parameters) {
    NF_CHECK(parameter != nullptr, "optimizer: a parameter is null");
    NF_CHECK(!parameter->buffer, "optimizer: {} is a buffer, which is not trained",
             parameter->name);
    NF_CHECK(parameter->value, "optimizer: {} is on no device", parameter->name);
    const auto zeros = [&] {
      return Tensor::full(parameter->value.context(), parameter->shape, 0.0,
                          parameter->value.dtype(), Category::optimizer);
    };
    Slot slot{parameter, {}, {}};
    if (options_.kind == OptimizerKind::adamw || options_.momentum > 0) slot.first = zeros();
    if (options_.kind == OptimizerKind::adamw) slot.second = zeros();
    slots_.push_back(std::move(slot));
  }
}

void Optimizer::step(double factor) {
  check_ready(factor);
  complete(factor, nullptr);
  ++steps_;
}

void Optimizer::capture_step(const CapturedUpdate& captured) {
  NF_CHECK(steps_ > 0, "optimizer: a first step, which only fills the state, is not captured");
  check_ready(1.0);
  complete(1.0, &captured);
}

void Optimizer::update_now(std::span<const Tensor> values, double factor) {
  update_part(values, factor, nullptr);
}

void Optimizer::capture_now(std::span<const Tensor> values, const CapturedUpdate& captured) {
  NF_CHECK(steps_ > 0, "optimizer: a first step, which only fills the state, is not captured");
  update_part(values, 1.0, &captured);
}

void Optimizer::update_rows_now(const Tensor& value, std::int64_t begin, const Tensor& gradient,
                                double factor) {
  update_rows(value, begin, gradient, factor, nullptr);
}

void Optimizer::capture_rows_now(const Tensor& value, std::int64_t begin, const Tensor& gradient,
                                 const CapturedUpdate& captured) {
  NF_CHECK(steps_ > 0, "optimizer: a first step, which only fills the state, is not captured");
  update_rows(value, begin, gradient, 1.0, &captured);
}

void Optimizer::count_replayed(double norm) {
  if (options_.max_gradient_norm > 0) check_norm(norm);
  ++steps_;
}

std::array<UpdateScalars, 2> Optimizer::scalars(double factor) const {
  const double rate = options_.learning_rate * factor;
  if (options_.kind == OptimizerKind::sgd) return {sgd_scalars(rate), sgd_scalars(rate)};
  const auto with = [&](double decay) {
    return adamw_scalars(rate, options_.beta1, options_.beta2, decay, steps_ + 1);
  };
  return {with(options_.weight_decay), with(0.0)};
}

void Optimizer::check_factor(double factor) const {
  NF_CHECK(factor >= 0 && std::isfinite(factor),
           "optimizer: the learning rate's factor must not be negative, got {}", factor);
}

void Optimizer::check_ready(double factor) const {
  check_factor(factor);
  for (const Slot& slot : slots_)
    NF_CHECK(slot.updated() || (slot.parameter->value && slot.parameter->value.grad()),
             "optimizer: {} has no gradient", slot.parameter->name);
}

void Optimizer::check_norm(double norm) const {
  if (!std::isfinite(norm))
    fail_diverged("optimizer: the gradients' norm is {}, from {} on", norm,
                  slots_.front().parameter->name);
}

void Optimizer::complete(double factor, const CapturedUpdate* captured) {
  const PhaseScope phase("update");
  const OpScope op("optimizer");
  // The host reads the answer: what checks is not captured (see StepRunner).
  if (options_.check_finite) check_gradients();
  if (options_.max_gradient_norm > 0)
    clip_gradients(captured != nullptr ? captured->norm : nullptr);
  RecycledVector<Part> rest;
  rest.reserve(slots_.size());
  for (Slot& slot : slots_) {
    if (!slot.updated()) rest.push_back(part_of(slot));
    slot.rows_updated = 0;
  }
  update(rest, factor, captured);
}

void Optimizer::update_part(std::span<const Tensor> values, double factor,
                            const CapturedUpdate* captured) {
  NF_CHECK(immediate(), "optimizer: this step updates all parameters together");
  check_factor(factor);
  const PhaseScope phase("update");
  const OpScope op("optimizer");
  RecycledVector<Slot*> slots;
  RecycledVector<Part> parts;
  for (Slot& slot : slots_) {
    const Tensor& own = slot.parameter->value;
    const auto is_own = [&](const Tensor& value) { return own && value.id() == own.id(); };
    if (std::ranges::none_of(values, is_own)) continue;
    NF_CHECK(slot.rows_updated == 0, "optimizer: {} was updated by this step already",
             slot.parameter->name);
    NF_CHECK(own.grad(), "optimizer: {} has no gradient", slot.parameter->name);
    slots.push_back(&slot);
    parts.push_back(part_of(slot));
  }
  update(parts, factor, captured);
  for (Slot* slot : slots) {
    slot->rows_updated = slot->parameter->shape[0];
    slot->parameter->value.clear_grad();
  }
}

void Optimizer::update_rows(const Tensor& value, std::int64_t begin, const Tensor& gradient,
                            double factor, const CapturedUpdate* captured) {
  NF_CHECK(immediate(), "optimizer: this step updates all parameters together");
  check_factor(factor);
  const PhaseScope phase("update");
  const OpScope op("optimizer");
  const auto slot = std::ranges::find_if(slots_, [&](const Slot& each) {
    return each.parameter->value && each.parameter->value.id() == value.id();
  });
  if (slot == slots_.end()) return;
  const Parameter& parameter = *slot->parameter;
  const std::int64_t rows = gradient.dim(0);
  NF_CHECK(begin == slot->rows_updated && gradient.shape() == parameter.shape.with_batch(rows) &&
               begin + rows <= parameter.shape[0],
           "optimizer: {} {} gets a gradient {} from row {} on, when {} rows are updated",
           parameter.name, parameter.shape.str(), gradient.shape().str(), begin,
           slot->rows_updated);
  Part part = part_of(*slot);
  part.gradient = gradient.view();
  for (View* view : {&part.value, &part.first, &part.second}) *view = rows_of(*view, begin, rows);
  update({&part, 1}, factor, captured);
  slot->rows_updated += rows;
}

Optimizer::Part Optimizer::part_of(Slot& slot) const {
  Tensor& value = slot.parameter->value;
  return {options_.decay_norm_and_bias || slot.parameter->decay, value.mutable_view(),
          value.grad() ? value.grad().view() : ConstView(), slot.first.mutable_view(),
          slot.second.mutable_view()};
}

void Optimizer::update(std::span<const Part> parts, double factor, const CapturedUpdate* captured) {
  Backend& backend = slots_.front().parameter->value.backend();
  const double rate = options_.learning_rate * factor;
  // One call for those that decay, one for the others: a device takes many parameters at once.
  for (const bool decays : {true, false}) {
    RecycledVector<SgdParameter> by_sgd;
    RecycledVector<AdamWParameter> by_adamw;
    for (const Part& part : parts) {
      if (part.decays != decays) continue;
      if (options_.kind == OptimizerKind::sgd)
        by_sgd.push_back({part.value, part.gradient, part.first});
      else
        by_adamw.push_back({part.value, part.gradient, part.first, part.second});
    }
    if (by_sgd.empty() && by_adamw.empty()) continue;
    UpdateSource source;
    if (captured != nullptr)
      source = {decays ? captured->decaying : captured->others, captured->loss,
                options_.max_gradient_norm > 0 ? captured->norm : nullptr};
    const double decay = decays ? options_.weight_decay : 0.0;
    if (options_.kind == OptimizerKind::sgd)
      backend.sgd({.learning_rate = rate,
                   .momentum = options_.momentum,
                   .weight_decay = decay,
                   .nesterov = options_.nesterov,
                   .first = steps_ == 0,
                   .source = source},
                  by_sgd);
    else
      backend.adamw({.learning_rate = rate,
                     .beta1 = options_.beta1,
                     .beta2 = options_.beta2,
                     .eps = options_.eps,
                     .weight_decay = decay,
                     .step = steps_ + 1,
                     .source = source},
                    by_adamw);
  }
}

void Optimizer::check_gradients() const {
  RecycledVector<ConstView> gradients;
  for (const Slot& slot : slots_) gradients.push_back(slot.parameter->value.grad().view());
  const ContextPtr& context = slots_.front().parameter->value.context();
  {
    Tensor flag = Tensor::full(context, {1}, 1, DType::i32, Category::workspace);
    context->backend().gradients_finite(gradients, flag.mutable_view());
    // The meta device holds no values.
    if (context->is_meta() || flag.item<std::int32_t>() != 0) return;
  }
  for (const Slot& slot : slots_)
    if (!all_finite(slot.parameter->value.grad()))
      fail_diverged("optimizer: the gradient of {} {} is not finite in step {}",
                    slot.parameter->name, slot.parameter->shape.str(), steps_ + 1);
}

// The norm is checked here, or left at `kept_norm` for whoever replays to check.
void Optimizer::clip_gradients(float* kept_norm) {
  RecycledVector<View> gradients;
  for (const Slot& slot : slots_) {
    Tensor gradient = slot.parameter->value.grad();
    gradients.push_back(gradient.mutable_view());
  }
  const Tensor& first = slots_.front().parameter->value;
  const ContextPtr& context = first.context();
  Backend& backend = context->backend();
  Tensor norm = Tensor::empty(context, {1}, first.dtype(), Category::workspace);
  {
    const std::int64_t bytes = backend.gradient_norm_workspace(gradients);
    std::optional<Storage> scratch;
    if (bytes > 0) scratch.emplace(context, bytes, Category::workspace);
    backend.gradient_norm(gradients, norm.mutable_view(),
                          scratch ? Workspace{scratch->data(), bytes} : Workspace{});
  }
  if (kept_norm != nullptr)
    backend.copy({kept_norm, DType::f32, {1}}, norm.view());
  else
    check_norm(first.dtype() == DType::f64 ? norm.item<double>()
                                           : static_cast<double>(norm.item<float>()));
  backend.clip_gradients(gradients, options_.max_gradient_norm, norm.view());
}

void Optimizer::zero_grad() {
  for (Slot& slot : slots_) {
    slot.parameter->value.clear_grad();
    slot.rows_updated = 0;
  }
}

std::string Optimizer::steps_name() const { return "steps." + slots_.front().parameter->name; }

std::vector<Optimizer::NamedState> Optimizer::state_tensors() const {
  const bool sgd = options_.kind == OptimizerKind::sgd;
  std::vector<NamedState> result;
  for (const Slot& slot : slots_) {
    const std::string& name = slot.parameter->name;
    if (slot.first) result.push_back({(sgd ? "momentum." : "exp_avg.") + name, slot.first});
    if (slot.second) result.push_back({"exp_avg_sq." + name, slot.second});
  }
  return result;
}

void Optimizer::save_state(StateDict& state) const {
  const auto high = static_cast<float>(steps_ / kStepsBase);
  const auto low = static_cast<float>(steps_ % kStepsBase);
  state[steps_name()] = {{2}, {high, low}};
  for (const NamedState& entry : state_tensors())
    state[entry.name] = {entry.tensor.shape(), entry.tensor.to_host<float>()};
}

void Optimizer::load_state(const StateDict& state) {
  const std::int64_t steps = parse_steps(steps_name(), find_state(state, steps_name(), {2}));
  for (const NamedState& entry : state_tensors())
    find_state(state, entry.name, entry.tensor.shape());
  for (NamedState& entry : state_tensors())
    entry.tensor.copy_from_host(find_state(state, entry.name, entry.tensor.shape()).values.data());
  steps_ = steps;
}

}  // namespace nf::nn
