// Pooling, element-wise operators and the loss.
#include <algorithm>
#include <cmath>

#include "engine/ops/ops.h"
#include "engine/random.h"
#include "tests/support/op_builders.h"

namespace nf::test {
namespace {

/// A permutation of evenly spread values: no two closer than a finite difference moves them.
void make_distinct(Values& values, const std::string& name) {
  RandomStream random(hash_name(name));
  const std::vector<std::int64_t> order =
      permutation(static_cast<std::int64_t>(values.size()), random);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = stored(storage(), static_cast<double>(order[i]) / 512 - 1);
}

Instance pool_instance(const std::string& op, const Pool2dCase& p) {
  Instance t = start(op, p.name, {p.n, p.out_h(), p.out_w(), p.c});
  t.gradcheck = p.gradcheck;
  add_input(t, "x", {p.n, p.h, p.w, p.c});
  return t;
}

/// The most windows that one pixel is part of.
std::int64_t overlap(const Pool2dCase& p) {
  const std::int64_t along = (p.kernel + p.stride - 1) / p.stride;
  return along * along;
}

std::vector<Instance> rectifier_instances(Activation activation) {
  std::vector<Instance> result;
  for (const ElementwiseCase& p : elementwise_cases()) {
    Instance t = start(activation == Activation::relu ? "relu" : "relu6", p.name, p.x);
    t.gradcheck = p.gradcheck;
    add_input(t, "x", p.x, -8, 8);
    // What 16 bits hold is at a kink or far from it.
    if (!has_16_bits(storage()))
      move_from_kinks(t, activation, 2e-5, [&] { return t.inputs[0].values; });
    const Values x = t.inputs[0].values, dy = t.dy;
    t.run = [activation](Tape* tape, const std::vector<Tensor>& in) {
      return activation == Activation::relu ? relu(tape, in[0]) : relu6(tape, in[0]);
    };
    t.forward = [=] {
      Values y = x;
      for (double& value : y) value = reference::activate(activation, value);
      return y;
    };
    t.backward = [=] {
      Values dx = dy;
      for (std::size_t i = 0; i < x.size(); ++i)
        dx[i] *= reference::activation_slope(activation, x[i]);
      return std::vector<Values>{dx};
    };
    t.gradient_bounds = {Bound{}};
    result.push_back(std::move(t));
  }
  return result;
}

}  // namespace

std::vector<Instance> max_pool_instances() {
  std::vector<Instance> result;
  for (const bool ties : {false, true})
    for (const Pool2dCase& p : pool2d_cases()) {
      Instance t = pool_instance(ties ? "max_pool with ties" : "max_pool", p);
      Values& values = t.inputs[0].values;
      if (ties)
        for (double& value : values) value = std::round(value * 2) / 2;
      else
        make_distinct(values, t.name);
      const Values x = values, dy = t.dy;
      t.gradcheck = p.gradcheck && !ties;
      t.run = [p](Tape* tape, const std::vector<Tensor>& in) {
        return max_pool(tape, in[0],
                        {.kernel = p.kernel, .stride = p.stride, .padding = p.padding});
      };
      t.forward = [=] { return reference::max_pool(p, x); };
      t.backward = [=] { return std::vector<Values>{reference::max_pool_backward(p, x, dy)}; };
      t.gradient_bounds = {overlap(p) == 1 ? Bound{} : sum_of(overlap(p), largest(dy))};
      result.push_back(std::move(t));
    }
  return result;
}

std::vector<Instance> avg_pool_instances() {
  std::vector<Instance> result;
  for (const bool whole : {true, false})
    for (const Pool2dCase& p : pool2d_cases()) {
      if (!whole && p.padding == 0) continue;
      Instance t = pool_instance(whole ? "avg_pool" : "avg_pool without padding", p);
      const Values x = t.inputs[0].values, dy = t.dy;
      t.run = [p, whole](Tape* tape, const std::vector<Tensor>& in) {
        return avg_pool(tape, in[0],
                        {.kernel = p.kernel,
                         .stride = p.stride,
                         .padding = p.padding,
                         .count_include_pad = whole});
      };
      t.forward = [=] { return reference::avg_pool(p, x, whole); };
      t.backward = [=] { return std::vector<Values>{reference::avg_pool_backward(p, dy, whole)}; };
      // A corner's window may hold as little as a quarter of the kernel, rounded down.
      const std::int64_t cells = p.kernel * p.kernel;
      const std::int64_t least = whole ? cells : std::max<std::int64_t>(1, cells / 4);
      t.output_bound = sum_of(cells, 1 / static_cast<double>(least));
      t.gradient_bounds = {sum_of(overlap(p), 1 / static_cast<double>(least))};
      result.push_back(std::move(t));
    }
  return result;
}

std::vector<Instance> adaptive_avg_pool_instances() {
  std::vector<Instance> result;
  for (const AdaptivePoolCase& p : adaptive_pool_cases()) {
    Instance t = start("adaptive_avg_pool", p.name, {p.n, p.out_h, p.out_w, p.c});
    t.gradcheck = p.gradcheck;
    add_input(t, "x", {p.n, p.h, p.w, p.c});
    const Values x = t.inputs[0].values, dy = t.dy;
    t.run = [p](Tape* tape, const std::vector<Tensor>& in) {
      return adaptive_avg_pool(tape, in[0], p.out_h, p.out_w);
    };
    t.forward = [=] { return reference::adaptive_avg_pool(p, x); };
    t.backward = [=] { return std::vector<Values>{reference::adaptive_avg_pool_backward(p, dy)}; };
    // A cell holds at least floor(in / out) rows; the cells over one pixel are out / in + 2 each
    // way.
    const std::int64_t rows = std::max<std::int64_t>(1, p.h / p.out_h);
    const std::int64_t columns = std::max<std::int64_t>(1, p.w / p.out_w);
    const double weight = 1 / static_cast<double>(rows * columns);
    t.output_bound = sum_of((rows + 2) * (columns + 2), weight);
    t.gradient_bounds = {sum_of((p.out_h / p.h + 2) * (p.out_w / p.w + 2), weight)};
    result.push_back(std::move(t));
  }
  return result;
}

std::vector<Instance> relu_instances() { return rectifier_instances(Activation::relu); }
std::vector<Instance> relu6_instances() { return rectifier_instances(Activation::relu6); }

std::vector<Instance> add_instances() {
  std::vector<Instance> result;
  for (const ElementwiseCase& p : elementwise_cases()) {
    Instance t = start("add", p.name, p.x);
    t.gradcheck = p.gradcheck;
    add_input(t, "a", p.x);
    add_input(t, "b", p.x);
    const Values a = t.inputs[0].values, b = t.inputs[1].values, dy = t.dy;
    t.run = [](Tape* tape, const std::vector<Tensor>& in) { return add(tape, in[0], in[1]); };
    t.forward = [=] {
      Values y = a;
      for (std::size_t i = 0; i < y.size(); ++i) y[i] += b[i];
      return y;
    };
    t.backward = [=] { return std::vector<Values>{dy, dy}; };
    t.output_bound = {1, 1};
    t.gradient_bounds = {Bound{}, Bound{}};
    result.push_back(std::move(t));
  }
  return result;
}

std::vector<Instance> scale_instances() {
  std::vector<Instance> result;
  for (const double alpha : {-0.3, 4.0})
    for (const ElementwiseCase& p : elementwise_cases()) {
      Instance t = start("scale", p.name + (alpha < 0 ? " by -0.3" : " by 4"), p.x);
      t.gradcheck = p.gradcheck;
      add_input(t, "x", p.x);
      const Values x = t.inputs[0].values, dy = t.dy;
      const auto scaled = [alpha](Values values) {
        for (double& value : values) value *= alpha;
        return values;
      };
      t.run = [alpha](Tape* tape, const std::vector<Tensor>& in) {
        return scale(tape, in[0], alpha);
      };
      t.forward = [=] { return scaled(x); };
      t.backward = [=] { return std::vector<Values>{scaled(dy)}; };
      // A power of two rounds nothing.
      t.output_bound = alpha < 0 ? Bound{2, -alpha} : Bound{};
      t.gradient_bounds = {t.output_bound};
      result.push_back(std::move(t));
    }
  return result;
}

std::vector<Instance> reshape_instances() {
  std::vector<Instance> result;
  for (const ReshapeCase& p : reshape_cases()) {
    Instance t = start("reshape", p.name, p.to);
    add_input(t, "x", p.from);
    const Values x = t.inputs[0].values, dy = t.dy;
    t.run = [p](Tape* tape, const std::vector<Tensor>& in) { return reshape(tape, in[0], p.to); };
    t.forward = [=] { return x; };
    t.backward = [=] { return std::vector<Values>{dy}; };
    t.gradient_bounds = {Bound{}};
    result.push_back(std::move(t));
  }
  return result;
}

std::vector<Instance> dropout_instances() {
  std::vector<Instance> result;
  for (const DropoutCase& p : dropout_cases()) {
    Instance t = start("dropout", p.name, p.x);
    add_input(t, "x", p.x);
    const Values x = t.inputs[0].values, dy = t.dy;
    t.run = [p](Tape* tape, const std::vector<Tensor>& in) {
      return dropout(tape, in[0], p.p, p.key);
    };
    t.forward = [=] { return reference::dropout(p, x); };
    t.backward = [=] { return std::vector<Values>{reference::dropout(p, dy)}; };
    t.output_bound = {1, 1 / (1 - p.p)};
    t.gradient_bounds = {t.output_bound};
    result.push_back(std::move(t));
  }
  return result;
}

namespace {

std::vector<Instance> loss_instances(const std::string& op, decltype(softmax_cross_entropy)* loss) {
  std::vector<Instance> result;
  for (const CrossEntropyCase& p : cross_entropy_cases()) {
    Instance t = start(op, p.name, {1});
    t.statistics = true;
    t.gradcheck = p.gradcheck;
    add_input(t, "logits", {p.n, p.c}, -p.spread, p.spread);
    RandomStream random(hash_name(t.name));
    std::vector<std::int32_t> labels;
    for (std::int64_t n = 0; n < p.n; ++n)
      labels.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(p.c))));
    const Values x = t.inputs[0].values, dy = t.dy;
    t.run = [p, labels, loss](Tape* tape, const std::vector<Tensor>& in) {
      const Tensor target = Tensor::from_host<std::int32_t>(in[0].context(), {p.n}, labels);
      return loss(tape, in[0], target, p.smoothing).loss;
    };
    t.forward = [=] { return Values{reference::softmax_cross_entropy(p, x, labels).loss}; };
    t.backward = [=] {
      return std::vector<Values>{reference::softmax_cross_entropy_backward(p, x, labels, dy[0])};
    };
    // exp(x - max) carries the rounding of its argument, of the size of the logits.
    t.output_bound = {p.n + p.c, 1 + 2 * p.spread};
    t.gradient_bounds = {{p.c, std::abs(dy[0]) / static_cast<double>(p.n) * (1 + 2 * p.spread)}};
    result.push_back(std::move(t));
  }
  return result;
}

}  // namespace

std::vector<Instance> cross_entropy_instances() {
  return loss_instances("softmax_cross_entropy", softmax_cross_entropy);
}

std::vector<Instance> cross_entropy_with_gradient_instances() {
  std::vector<Instance> result =
      loss_instances("softmax_cross_entropy_with_gradient", softmax_cross_entropy_with_gradient);
  for (Instance& t : result) t.roundings = 2;  // stored, then multiplied by the seed
  return result;
}

}  // namespace nf::test
