// Operators that are bound by memory. Bytes are those that can't be avoided: each operand read or
// written once. Operands of one value per channel are left out.
#include <fmt/format.h>

#include <set>

#include "bench/net_shapes.h"
#include "bench/ops_bench.h"

namespace nf::bench {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// A batch norm over (rows, channels) with all that any of its passes needs.
struct BatchNormOperands {
  BatchNormOperands(const Setup& setup, const BatchNormProblem& p, bool with_residual)
      : x(random_tensor(setup.context, {p.rows, p.channels})),
        gamma(random_tensor(setup.context, {p.channels})),
        beta(random_tensor(setup.context, {p.channels})),
        running_mean(Tensor::full(setup.context, {p.channels}, 0.0)),
        running_var(Tensor::full(setup.context, {p.channels}, 1.0)),
        y(empty_tensor(setup, {p.rows, p.channels})),
        mean(empty_tensor(setup, {p.channels})),
        invstd(empty_tensor(setup, {p.channels})) {
    if (with_residual) residual = random_tensor(setup.context, {p.rows, p.channels});
  }

  void forward(Backend& backend, const BatchNormProblem& p, Workspace scratch) {
    backend.batch_norm_forward_train(p, x.view(), residual.view(), gamma.view(), beta.view(),
                                     running_mean.mutable_view(), running_var.mutable_view(),
                                     y.mutable_view(), mean.mutable_view(), invstd.mutable_view(),
                                     scratch);
  }

  Tensor x, residual, gamma, beta, running_mean, running_var, y, mean, invstd;
};

void batch_norm_train(benchmark::State& state, const Setup& setup, const BatchNormProblem& p,
                      bool residual) {
  Backend& backend = setup.backend();
  BatchNormOperands t(setup, p, residual);
  const Scratch scratch(setup.context, backend.batch_norm_workspace(p));
  time_op(state, setup, [&] { t.forward(backend, p, scratch); });
  report_bytes(state, t.x.bytes() * (residual ? 3 : 2));
}

void batch_norm_eval(benchmark::State& state, const Setup& setup, const BatchNormProblem& p,
                     bool residual) {
  Backend& backend = setup.backend();
  BatchNormOperands t(setup, p, residual);
  time_op(state, setup, [&] {
    backend.batch_norm_forward_eval(p, t.x.view(), t.residual.view(), t.gamma.view(), t.beta.view(),
                                    t.running_mean.view(), t.running_var.view(),
                                    t.y.mutable_view());
  });
  report_bytes(state, t.x.bytes() * (residual ? 3 : 2));
}

void batch_norm_backward(benchmark::State& state, const Setup& setup, const BatchNormProblem& p,
                         bool residual) {
  Backend& backend = setup.backend();
  BatchNormOperands t(setup, p, residual);
  const Tensor dy = random_tensor(setup.context, t.x.shape());
  Tensor dx = empty_tensor(setup, t.x.shape());
  Tensor dgamma = empty_tensor(setup, {p.channels}), dbeta = empty_tensor(setup, {p.channels});
  Tensor dresidual = residual ? empty_tensor(setup, t.x.shape()) : Tensor();
  const Scratch scratch(setup.context, backend.batch_norm_workspace(p));
  t.forward(backend, p, scratch);
  const ConstView y = residual && p.activation != Activation::none ? t.y.view() : ConstView{};
  time_op(state, setup, [&] {
    backend.batch_norm_backward(p, t.x.view(), y, dy.view(), t.gamma.view(), t.beta.view(),
                                t.mean.view(), t.invstd.view(), dx.mutable_view(),
                                dresidual.mutable_view(), dgamma.mutable_view(),
                                dbeta.mutable_view(), GradMode::overwrite, scratch);
  });
  report_bytes(state, t.x.bytes() * (residual ? 5 : 3));
}

void add_batch_norm(const Setup& setup, const ConvLayer& layer, Activation activation,
                    bool residual) {
  const Conv2dProblem conv = layer.problem(setup.batch);
  const BatchNormProblem p{
      .rows = conv.n * conv.out_h() * conv.out_w(), .channels = conv.o, .activation = activation};
  const std::string suffix = fmt::format("{}{}/{}/{}x{}x{}", residual ? "_add" : "",
                                         activation == Activation::relu ? "_relu" : "", layer.net,
                                         conv.out_h(), conv.out_w(), conv.o);
  const auto add = [&](const std::string& pass, auto body) {
    add_benchmark("batch_norm_" + pass + suffix,
                  [=](benchmark::State& state) { body(state, setup, p, residual); });
  };
  add("train", batch_norm_train);
  add("backward", batch_norm_backward);
  add("eval", batch_norm_eval);
}

void add_batch_norms(const Setup& setup) {
  std::set<std::string> seen;
  for (const ConvLayer& layer : conv_layers()) {
    const Conv2dProblem conv = layer.problem(1);
    if (!seen.insert(fmt::format("{} {} {}", layer.net, conv.out_h(), conv.o)).second) continue;
    add_batch_norm(setup, layer, Activation::none, false);
    add_batch_norm(setup, layer, Activation::relu, false);
    if (layer.net == "resnet18") add_batch_norm(setup, layer, Activation::relu, true);
  }
}

Pool2dProblem pool_problem(const Setup& setup, const PoolLayer& layer) {
  return {.n = setup.batch,
          .h = layer.size,
          .w = layer.size,
          .c = layer.channels,
          .kernel = 2,
          .stride = 2};
}

void max_pool_forward(benchmark::State& state, const Setup& setup, const Pool2dProblem& p) {
  const Tensor x = random_tensor(setup.context, {p.n, p.h, p.w, p.c});
  Tensor y = empty_tensor(setup, {p.n, p.out_h(), p.out_w(), p.c});
  Tensor argmax = empty_tensor(setup, y.shape(), DType::u8);
  time_op(state, setup, [&] {
    setup.backend().max_pool_forward(p, x.view(), y.mutable_view(), argmax.mutable_view());
  });
  report_bytes(state, x.bytes() + y.bytes() + argmax.bytes());
}

void max_pool_backward(benchmark::State& state, const Setup& setup, const Pool2dProblem& p) {
  const Tensor dy = random_tensor(setup.context, {p.n, p.out_h(), p.out_w(), p.c});
  const Tensor argmax = Tensor::full(setup.context, dy.shape(), 3, DType::u8);
  Tensor dx = empty_tensor(setup, {p.n, p.h, p.w, p.c});
  time_op(state, setup, [&] {
    setup.backend().max_pool_backward(p, argmax.view(), dy.view(), dx.mutable_view(),
                                      GradMode::overwrite);
  });
  report_bytes(state, dx.bytes() + dy.bytes() + argmax.bytes());
}

void adaptive_pool_forward(benchmark::State& state, const Setup& setup, const PoolLayer& layer) {
  const Tensor x =
      random_tensor(setup.context, {setup.batch, layer.size, layer.size, layer.channels});
  Tensor y = empty_tensor(setup, {setup.batch, layer.to, layer.to, layer.channels});
  time_op(state, setup,
          [&] { setup.backend().adaptive_avg_pool_forward(x.view(), y.mutable_view()); });
  report_bytes(state, x.bytes() + y.bytes());
}

void adaptive_pool_backward(benchmark::State& state, const Setup& setup, const PoolLayer& layer) {
  const Tensor dy = random_tensor(setup.context, {setup.batch, layer.to, layer.to, layer.channels});
  Tensor dx = empty_tensor(setup, {setup.batch, layer.size, layer.size, layer.channels});
  time_op(state, setup, [&] {
    setup.backend().adaptive_avg_pool_backward(dy.view(), dx.mutable_view(), GradMode::overwrite);
  });
  report_bytes(state, dx.bytes() + dy.bytes());
}

/// Logits and labels of a batch.
struct LossOperands {
  LossOperands(const Setup& setup, std::int64_t classes)
      : logits(random_tensor(setup.context, {setup.batch, classes})),
        labels(Tensor::full(setup.context, {setup.batch}, 1, DType::i32)),
        loss(Tensor::full(setup.context, {1}, 1.0)) {}
  Tensor logits, labels, loss;
};

void loss_forward(benchmark::State& state, const Setup& setup, std::int64_t classes) {
  LossOperands t(setup, classes);
  Tensor correct = empty_tensor(setup, {1}, DType::i32);
  const Scratch scratch(setup.context,
                        setup.backend().softmax_cross_entropy_workspace(setup.batch, classes));
  time_op(state, setup, [&] {
    setup.backend().softmax_cross_entropy_forward(t.logits.view(), t.labels.view(), 0.0,
                                                  t.loss.mutable_view(), correct.mutable_view(),
                                                  scratch);
  });
  report_bytes(state, t.logits.bytes() + t.labels.bytes());
}

void loss_backward(benchmark::State& state, const Setup& setup, std::int64_t classes) {
  const LossOperands t(setup, classes);
  Tensor dlogits = empty_tensor(setup, t.logits.shape());
  time_op(state, setup, [&] {
    setup.backend().softmax_cross_entropy_backward(t.logits.view(), t.labels.view(), 0.0,
                                                   t.loss.view(), dlogits.mutable_view(),
                                                   GradMode::overwrite);
  });
  report_bytes(state, t.logits.bytes() + t.labels.bytes() + dlogits.bytes());
}

void loss_with_gradient(benchmark::State& state, const Setup& setup, std::int64_t classes) {
  LossOperands t(setup, classes);
  Tensor correct = empty_tensor(setup, {1}, DType::i32);
  Tensor dlogits = empty_tensor(setup, t.logits.shape());
  const Scratch scratch(setup.context,
                        setup.backend().softmax_cross_entropy_workspace(setup.batch, classes));
  time_op(state, setup, [&] {
    setup.backend().softmax_cross_entropy_forward_backward(
        t.logits.view(), t.labels.view(), 0.0, t.loss.mutable_view(), correct.mutable_view(),
        dlogits.mutable_view(), scratch);
  });
  report_bytes(state, t.logits.bytes() + t.labels.bytes() + dlogits.bytes());
}

void copy(benchmark::State& state, const Setup& setup, std::int64_t bytes) {
  ReferenceCopy copy(setup.context, bytes);
  time_op(state, setup, [&] { copy.run(); });
  report_bytes(state, copy.bytes_moved());
}

}  // namespace

void add_light_benchmarks(const Setup& setup) {
  // Far larger than any cache, and about the size of an early map.
  for (const std::int64_t bytes : {kReferenceCopyBytes, 4 * kMiB})
    add_benchmark(fmt::format("reference/copy_{}MiB", bytes / kMiB),
                  [=](benchmark::State& state) { copy(state, setup, bytes); });
  add_batch_norms(setup);
  for (const PoolLayer& layer : max_pool_layers()) {
    const Pool2dProblem p = pool_problem(setup, layer);
    add_benchmark("max_pool_forward/" + layer.name(),
                  [=](benchmark::State& state) { max_pool_forward(state, setup, p); });
    add_benchmark("max_pool_backward/" + layer.name(),
                  [=](benchmark::State& state) { max_pool_backward(state, setup, p); });
  }
  for (const PoolLayer& layer : adaptive_pool_layers()) {
    add_benchmark("adaptive_avg_pool_forward/" + layer.name(),
                  [=](benchmark::State& state) { adaptive_pool_forward(state, setup, layer); });
    add_benchmark("adaptive_avg_pool_backward/" + layer.name(),
                  [=](benchmark::State& state) { adaptive_pool_backward(state, setup, layer); });
  }
  for (const std::int64_t classes : {10, 100, 1000}) {
    add_benchmark(fmt::format("softmax_cross_entropy_forward/{}", classes),
                  [=](benchmark::State& state) { loss_forward(state, setup, classes); });
    add_benchmark(fmt::format("softmax_cross_entropy_backward/{}", classes),
                  [=](benchmark::State& state) { loss_backward(state, setup, classes); });
    add_benchmark(fmt::format("softmax_cross_entropy_forward_backward/{}", classes),
                  [=](benchmark::State& state) { loss_with_gradient(state, setup, classes); });
  }
}

}  // namespace nf::bench
