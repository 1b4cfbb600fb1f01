// Convolution, linear and batch norm.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/ops/ops.h"
#include "tests/support/op_builders.h"

namespace nf::test {
namespace {

/// The reference's gradients of x, w and, where there is one, the bias.
std::vector<Values> affine(reference::AffineGradients d, bool bias) {
  std::vector<Values> result{std::move(d.x), std::move(d.w)};
  if (bias) result.push_back(std::move(d.bias));
  return result;
}

}  // namespace

std::vector<Instance> conv2d_instances() {
  std::vector<Instance> result;
  for (const Conv2dCase& p : conv2d_cases()) {
    Instance t = start("conv2d", p.name, {p.n, p.out_h(), p.out_w(), p.o});
    t.gradcheck = p.gradcheck;
    add_input(t, "x", {p.n, p.h, p.w, p.c});
    add_input(t, "w", {p.o, p.kh, p.kw, p.c / p.groups});
    if (p.bias) add_input(t, "bias", {p.o});
    const Values x = t.inputs[0].values, w = t.inputs[1].values, dy = t.dy;
    const Values bias = p.bias ? t.inputs[2].values : Values();
    t.run = [p](Tape* tape, const std::vector<Tensor>& in) {
      return conv2d(tape, in[0], in[1], optional_input(in, 2),
                    {.stride = p.stride, .padding = p.padding, .groups = p.groups});
    };
    t.forward = [=] { return reference::conv2d(p, x, w, bias); };
    t.backward = [=] { return affine(reference::conv2d_backward(p, x, w, dy), p.bias); };
    const std::int64_t pixels = p.n * p.out_h() * p.out_w();
    t.output_bound = sum_of(p.kh * p.kw * p.c / p.groups + 1, rms(x) * rms(w));
    // A library's product is stored before the bias is added: it is no larger than both.
    if (p.bias) t.output_bound.stored = largest(t.forward()) + largest(bias);
    t.gradient_bounds = {sum_of(p.kh * p.kw * p.o / p.groups, rms(dy) * rms(w)),
                         sum_of(pixels, rms(dy) * rms(x))};
    if (p.bias) t.gradient_bounds.push_back(sum_of(pixels, rms(dy)));
    result.push_back(std::move(t));
  }
  return result;
}

// Each convolution with one of the five things that may follow it.
std::vector<Instance> conv2d_fused_instances() {
  struct Following {
    Activation activation;
    bool residual;
  };
  constexpr std::array<Following, 5> kFollowing{{{Activation::relu, false},
                                                 {Activation::relu, true},
                                                 {Activation::none, true},
                                                 {Activation::relu6, false},
                                                 {Activation::relu6, true}}};
  std::vector<Instance> result;
  for (const Conv2dCase& p : conv2d_cases()) {
    const Following follows = kFollowing[result.size() % kFollowing.size()];
    Instance t = start("conv2d_fused", p.name, {p.n, p.out_h(), p.out_w(), p.o});
    add_input(t, "x", {p.n, p.h, p.w, p.c});
    add_input(t, "w", {p.o, p.kh, p.kw, p.c / p.groups});
    add_input(t, "bias", {p.o}, -1, 7);
    if (follows.residual) add_input(t, "residual", t.output, -4, 4);
    t.recorded = false;
    t.run = [p, follows](Tape*, const std::vector<Tensor>& in) {
      return conv2d_fused(in[0], in[1], in[2], optional_input(in, 3), follows.activation,
                          {.stride = p.stride, .padding = p.padding, .groups = p.groups});
    };
    const std::vector<Instance::Input> in = t.inputs;
    t.forward = [=] {
      Values y = reference::conv2d(p, in[0].values, in[1].values, in[2].values);
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (follows.residual) y[i] += in[3].values[i];
        if (follows.activation != Activation::none)
          y[i] = std::clamp(y[i], 0.0, upper_bound(follows.activation));
      }
      return y;
    };
    const double size = rms(in[0].values) * rms(in[1].values);
    t.output_bound = sum_of(p.kh * p.kw * p.c / p.groups + 2, size);
    t.output_bound.scale += 11;  // of the bias and the residual, each added once
    const Values product = reference::conv2d(p, in[0].values, in[1].values, {});
    t.output_bound.stored = largest(product);
    result.push_back(std::move(t));
  }
  return result;
}

std::vector<Instance> linear_instances() {
  std::vector<Instance> result;
  for (const LinearCase& p : linear_cases()) {
    Instance t = start("linear", p.name, {p.n, p.o});
    t.gradcheck = p.gradcheck;
    add_input(t, "x", {p.n, p.i});
    add_input(t, "w", {p.o, p.i});
    if (p.bias) add_input(t, "bias", {p.o});
    const Values x = t.inputs[0].values, w = t.inputs[1].values, dy = t.dy;
    const Values bias = p.bias ? t.inputs[2].values : Values();
    t.run = [](Tape* tape, const std::vector<Tensor>& in) {
      return linear(tape, in[0], in[1], optional_input(in, 2));
    };
    t.forward = [=] { return reference::linear(p, x, w, bias); };
    t.backward = [=] { return affine(reference::linear_backward(p, x, w, dy), p.bias); };
    t.output_bound = sum_of(p.i + 1, rms(x) * rms(w));
    if (p.bias) t.output_bound.stored = largest(t.forward()) + largest(bias);
    t.gradient_bounds = {sum_of(p.o, rms(dy) * rms(w)), sum_of(p.n, rms(dy) * rms(x))};
    if (p.bias) t.gradient_bounds.push_back(sum_of(p.n, rms(dy)));
    result.push_back(std::move(t));
  }
  return result;
}

std::vector<Instance> batch_norm_train_instances() {
  std::vector<Instance> result;
  for (const BatchNormCase& p : batch_norm_cases()) {
    Instance t = start("batch_norm", p.name, p.x);
    t.gradcheck = p.gradcheck;
    const Shape channels{p.x[-1]};
    // A wide gamma takes some outputs beyond the 6 of relu6.
    add_input(t, "x", p.x, p.offset - 2, p.offset + 2);
    add_statistics(t, "gamma", channels, 0.5, 5);
    add_statistics(t, "beta", channels);
    if (p.residual) add_input(t, "residual", p.x);
    const auto value = [](const Instance& from, std::size_t i) {
      return i < from.inputs.size() ? from.inputs[i].values : Values();
    };
    const Values none(static_cast<std::size_t>(p.x[-1]), 0.0);
    const auto forward = [=](const Instance& from) {
      return reference::batch_norm_train(p, value(from, 0), value(from, 3), value(from, 1),
                                         value(from, 2), none, none, 0);
    };
    // Where there are no finite differences only rounding may not cross a kink.
    move_from_kinks(t, p.activation, p.gradcheck ? 2e-4 : 5e-6,
                    [&] { return forward(t).before_activation; });
    const Instance given = t;
    t.run = [p](Tape* tape, const std::vector<Tensor>& in) {
      const ContextPtr& context = in[0].context();
      BatchNormState state{in[1], in[2], Tensor::full(context, in[1].shape(), 0.0, in[1].dtype()),
                           Tensor::full(context, in[1].shape(), 1.0, in[1].dtype())};
      return batch_norm(tape, in[0], optional_input(in, 3), state, {.activation = p.activation});
    };
    t.forward = [=] { return forward(given).y; };
    std::function<double(double)> rounded;
    if (has_16_bits(storage())) rounded = [type = storage()](double y) { return stored(type, y); };
    t.backward = [=] {
      reference::BatchNormGradients d = reference::batch_norm_backward(
          p, value(given, 0), value(given, 3), value(given, 1), value(given, 2), given.dy, rounded);
      std::vector<Values> all{d.x, d.gamma, d.beta};
      if (p.residual) all.push_back(d.residual);
      return all;
    };
    const auto f = forward(t);
    const std::int64_t rows = p.x.numel() / p.x[-1];
    const double gamma = largest(value(t, 1)), dy = largest(t.dy), x = largest(value(t, 0));
    double invstd = 0;
    for (const double v : f.variance)
      invstd = std::max(invstd, 1 / std::sqrt(v + reference::kBatchNormEps));
    // The mean's rounding error is of x's size and enters the normalised value times 1/std.
    const double hat = 1 + x * invstd;
    t.output_bound = {rows, gamma * hat + largest(value(t, 2)) + largest(value(t, 3))};
    t.gradient_bounds = {
        {rows, gamma * invstd * dy * hat}, sum_of(rows, dy * hat), sum_of(rows, dy)};
    if (p.residual) t.gradient_bounds.push_back({1, 0});
    result.push_back(std::move(t));
  }
  return result;
}

std::vector<Instance> batch_norm_eval_instances() {
  std::vector<Instance> result;
  for (const BatchNormCase& p : batch_norm_cases()) {
    Instance t = start("batch_norm_eval", p.name, p.x);
    const Shape channels{p.x[-1]};
    add_input(t, "x", p.x, p.offset - 2, p.offset + 2);
    add_statistics(t, "gamma", channels, 0.5, 5);
    add_statistics(t, "beta", channels);
    add_statistics(t, "running_mean", channels, p.offset - 0.5, p.offset + 0.5);
    add_statistics(t, "running_var", channels, 0.5, 2);
    if (p.residual) add_input(t, "residual", p.x);
    t.recorded = false;
    t.run = [p](Tape* tape, const std::vector<Tensor>& in) {
      BatchNormState state{in[1], in[2], in[3], in[4]};
      return batch_norm(tape, in[0], optional_input(in, 5), state,
                        {.training = false, .activation = p.activation});
    };
    const std::vector<Instance::Input> in = t.inputs;
    t.forward = [=] {
      return reference::batch_norm_eval(p, in[0].values, p.residual ? in[5].values : Values(),
                                        in[1].values, in[2].values, in[3].values, in[4].values);
    };
    // 1/std is at most sqrt(2); a scale-and-shift form subtracts numbers of x's size.
    t.output_bound = {1, 5 * (1 + largest(in[0].values) * std::sqrt(2.0)) + 2};
    result.push_back(std::move(t));
  }
  return result;
}

// The convolutions' weights, beside the bias in one row per channel: both are results.
std::vector<Instance> batch_norm_fold_instances() {
  std::vector<Instance> result;
  for (const Conv2dCase& p : conv2d_cases()) {
    const Shape channels{p.o}, weights{p.o, p.kh, p.kw, p.c / p.groups};
    for (const bool weight : {true, false}) {
      Instance t = start("batch_norm_fold", p.name + (weight ? ", weight" : ", bias"),
                         weight ? weights : channels);
      t.recorded = false;
      t.statistics = true;
      add_statistics(t, "gamma", channels, -5, 5);
      add_statistics(t, "beta", channels);
      add_statistics(t, "running_mean", channels);
      add_statistics(t, "running_var", channels, 0.5, 2);
      add_statistics(t, "w", weights);
      if (p.bias) add_statistics(t, "bias", channels);
      t.run = [weight](Tape*, const std::vector<Tensor>& in) {
        BatchNormState state{in[0], in[1], in[2], in[3]};
        Tensor w = in[4];
        batch_norm_fold(w, optional_input(in, 5), state);
        return weight ? w : state.beta;
      };
      const std::vector<Instance::Input> in = t.inputs;
      t.forward = [=, has_bias = p.bias] {
        Values y = in[weight ? 4 : 1].values;
        const std::size_t each = y.size() / in[0].values.size();
        for (std::size_t i = 0; i < y.size(); ++i) {
          const std::size_t c = i / each;
          const double scale = in[0].values[c] / std::sqrt(in[3].values[c] + 1e-5);
          const double from = (has_bias ? in[5].values[c] : 0.0) - in[2].values[c];
          y[i] = weight ? y[i] * scale : y[i] + from * scale;
        }
        return y;
      };
      // |scale| is at most 5 sqrt(2); it, the differences and the sums are rounded once each.
      t.output_bound = {1, 5 * std::sqrt(2.0) * 2 + 1};
      result.push_back(std::move(t));
    }
  }
  return result;
}

}  // namespace nf::test
