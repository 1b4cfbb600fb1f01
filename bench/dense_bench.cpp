#include <fmt/format.h>

#include <set>

#include "bench/net_shapes.h"
#include "bench/ops_bench.h"

namespace nf::bench {
namespace {

void conv_forward(benchmark::State& state, const Setup& setup, const Conv2dProblem& p) {
  const Tensor x = random_tensor(setup.context, {p.n, p.h, p.w, p.c});
  const Tensor w = random_tensor(setup.context, {p.o, p.kh, p.kw, p.c / p.groups});
  Tensor y = empty_tensor(setup, {p.n, p.out_h(), p.out_w(), p.o});
  Backend& backend = setup.backend();
  const Scratch scratch(setup.context,
                        backend.conv2d_workspace(p, Pass::forward, GradMode::overwrite));
  time_op(state, setup, [&] {
    backend.conv2d_forward(p, x.view(), w.view(), {}, {}, y.mutable_view(), scratch);
  });
  report_flops(state, flops(p));
}

void conv_backward_input(benchmark::State& state, const Setup& setup, const Conv2dProblem& p) {
  const Tensor dy = random_tensor(setup.context, {p.n, p.out_h(), p.out_w(), p.o});
  const Tensor w = random_tensor(setup.context, {p.o, p.kh, p.kw, p.c / p.groups});
  Tensor dx = empty_tensor(setup, {p.n, p.h, p.w, p.c});
  Backend& backend = setup.backend();
  const GradMode mode = GradMode::overwrite;
  const Scratch scratch(setup.context, backend.conv2d_workspace(p, Pass::backward_input, mode));
  time_op(state, setup, [&] {
    backend.conv2d_backward_input(p, dy.view(), w.view(), dx.mutable_view(), mode, scratch);
  });
  report_flops(state, flops(p));
}

void conv_backward_weight(benchmark::State& state, const Setup& setup, const Conv2dProblem& p) {
  const Tensor x = random_tensor(setup.context, {p.n, p.h, p.w, p.c});
  const Tensor dy = random_tensor(setup.context, {p.n, p.out_h(), p.out_w(), p.o});
  Tensor dw = empty_tensor(setup, {p.o, p.kh, p.kw, p.c / p.groups});
  Backend& backend = setup.backend();
  const GradMode mode = GradMode::overwrite;
  const Scratch scratch(setup.context, backend.conv2d_workspace(p, Pass::backward_weight, mode));
  time_op(state, setup, [&] {
    backend.conv2d_backward_weight(p, x.view(), dy.view(), dw.mutable_view(), mode, scratch);
  });
  report_flops(state, flops(p));
}

void linear_forward(benchmark::State& state, const Setup& setup, const LinearProblem& p) {
  const Tensor x = random_tensor(setup.context, {p.n, p.i}),
               w = random_tensor(setup.context, {p.o, p.i});
  const Tensor bias = random_tensor(setup.context, {p.o});
  Tensor y = empty_tensor(setup, {p.n, p.o});
  Backend& backend = setup.backend();
  const Scratch scratch(setup.context,
                        backend.linear_workspace(p, Pass::forward, GradMode::overwrite));
  time_op(state, setup, [&] {
    backend.linear_forward(p, x.view(), w.view(), bias.view(), y.mutable_view(), scratch);
  });
  report_flops(state, flops(p));
}

void linear_backward_input(benchmark::State& state, const Setup& setup, const LinearProblem& p) {
  const Tensor dy = random_tensor(setup.context, {p.n, p.o}),
               w = random_tensor(setup.context, {p.o, p.i});
  Tensor dx = empty_tensor(setup, {p.n, p.i});
  Backend& backend = setup.backend();
  const GradMode mode = GradMode::overwrite;
  const Scratch scratch(setup.context, backend.linear_workspace(p, Pass::backward_input, mode));
  time_op(state, setup, [&] {
    backend.linear_backward_input(p, dy.view(), w.view(), dx.mutable_view(), mode, scratch);
  });
  report_flops(state, flops(p));
}

void linear_backward_weight(benchmark::State& state, const Setup& setup, const LinearProblem& p) {
  const Tensor x = random_tensor(setup.context, {p.n, p.i}),
               dy = random_tensor(setup.context, {p.n, p.o});
  Tensor dw = empty_tensor(setup, {p.o, p.i});
  Backend& backend = setup.backend();
  const GradMode mode = GradMode::overwrite;
  const Scratch scratch(setup.context, backend.linear_workspace(p, Pass::backward_weight, mode));
  time_op(state, setup, [&] {
    backend.linear_backward_weight(p, x.view(), dy.view(), dw.mutable_view(), mode, scratch);
  });
  report_flops(state, flops(p));
}

}  // namespace

void add_dense_benchmarks(const Setup& setup) {
  const std::int64_t side = reference_side(setup.context->device().kind);
  for (const std::int64_t size : std::set<std::int64_t>{1024, side})
    add_benchmark(fmt::format("reference/matmul_{}", size), [=](benchmark::State& state) {
      ReferenceProduct product(setup.context, {.n = size, .i = size, .o = size});
      time_op(state, setup, [&] { product.run(); });
      report_flops(state, product.flops());
    });
  for (const ConvLayer& layer : conv_layers()) {
    const Conv2dProblem p = layer.problem(setup.batch);
    add_benchmark("conv2d_forward/" + layer.name(),
                  [=](benchmark::State& state) { conv_forward(state, setup, p); });
    // No gradient reaches the image.
    if (layer.in != 3)
      add_benchmark("conv2d_backward_input/" + layer.name(),
                    [=](benchmark::State& state) { conv_backward_input(state, setup, p); });
    add_benchmark("conv2d_backward_weight/" + layer.name(),
                  [=](benchmark::State& state) { conv_backward_weight(state, setup, p); });
  }
  for (const LinearLayer& layer : linear_layers()) {
    const LinearProblem p{.n = setup.batch, .i = layer.in, .o = layer.out};
    const std::string name = fmt::format("{}/{}x{}", layer.net, layer.in, layer.out);
    add_benchmark("linear_forward/" + name,
                  [=](benchmark::State& state) { linear_forward(state, setup, p); });
    add_benchmark("linear_backward_input/" + name,
                  [=](benchmark::State& state) { linear_backward_input(state, setup, p); });
    add_benchmark("linear_backward_weight/" + name,
                  [=](benchmark::State& state) { linear_backward_weight(state, setup, p); });
  }
}

}  // namespace nf::bench
