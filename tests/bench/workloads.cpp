#include "tests/bench/workloads.h"

#include <memory>
#include <vector>

#include "bench/reference.h"
#include "neuroflux/local_net.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

constexpr GradMode kOverwrite = GradMode::overwrite;

std::shared_ptr<Scratch> scratch_of(const ContextPtr& context, std::int64_t bytes) {
  return std::make_shared<Scratch>(context, bytes);
}

Tensor empty(const ContextPtr& context, const Shape& shape, DType dtype = DType::f32) {
  return Tensor::empty(context, shape, dtype);
}

std::int64_t bytes_of(std::initializer_list<Tensor> tensors) {
  std::int64_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

struct Images {
  Images(const Shape& sample, std::int64_t count)
      : images(static_cast<std::size_t>(count * sample.numel()), 0.5F),
        labels(static_cast<std::size_t>(count), 1) {
    batch = {.size = count, .sample = sample, .images = images.data(), .labels = labels.data()};
  }
  std::vector<float> images;
  std::vector<std::int32_t> labels;
  nn::HostBatch batch;
};

const nn::OptimizerOptions kOptimizer{.learning_rate = 1e-6};

struct WholeNet {
  WholeNet(const ContextPtr& context, double width, std::int64_t batch)
      : model(nn::make_model("vgg11", {.width = width})),
        images({32, 32, 3}, batch),
        trainer(context, *model, kOptimizer, 0) {}
  std::unique_ptr<nn::Model> model;
  Images images;
  nn::BpTrainer trainer;
};

struct OneUnit {
  OneUnit(const ContextPtr& context, double width, std::int64_t batch)
      : model(nn::make_model("vgg11", {.width = width})),
        auxiliary(make_auxiliary(*model, *make_auxiliary_rule("adaptive"), 1, 64)),
        images(model->unit_input_shape(1, batch).sample(), batch),
        block(context, {{"conv2", &model->unit(1), auxiliary.get()}}, images.batch.sample,
              kOptimizer, 0) {}
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<nn::Module> auxiliary;
  Images images;
  LocalBlock block;
};

}  // namespace

Workload convolution(const ContextPtr& context, const Conv2dProblem& p, Pass pass) {
  Tensor x = random_tensor(context, {p.n, p.h, p.w, p.c});
  Tensor w = random_tensor(context, {p.o, p.kh, p.kw, p.c / p.groups});
  Tensor y = random_tensor(context, {p.n, p.out_h(), p.out_w(), p.o});
  const Tensor residual = p.residual ? random_tensor(context, y.shape()) : Tensor();
  const auto scratch =
      scratch_of(context, context->backend().conv2d_workspace(p, pass, kOverwrite));
  const std::int64_t flops = p.depthwise() ? 0 : 2 * y.numel() * p.kh * p.kw * p.c / p.groups;
  return {[=]() mutable {
            Backend& backend = x.backend();
            if (pass == Pass::forward)
              backend.conv2d_forward(p, x.view(), w.view(), {},
                                     p.residual ? residual.view() : ConstView(), y.mutable_view(),
                                     *scratch);
            else if (pass == Pass::backward_input)
              backend.conv2d_backward_input(p, y.view(), w.view(), x.mutable_view(), kOverwrite,
                                            *scratch);
            else
              backend.conv2d_backward_weight(p, x.view(), y.view(), w.mutable_view(), kOverwrite,
                                             *scratch);
          },
          static_cast<double>(flops), bytes_of({x, w, y})};
}

Workload batch_norm(const ContextPtr& context, const Shape& maps, bool backward) {
  const std::int64_t channels = maps[maps.rank() - 1];
  const BatchNormProblem p{
      .rows = maps.numel() / channels, .channels = channels, .activation = Activation::relu};
  const Tensor x = random_tensor(context, maps), dy = random_tensor(context, maps);
  const Tensor gamma = random_tensor(context, {channels}),
               beta = random_tensor(context, {channels});
  Tensor y = empty(context, maps);
  Tensor mean = empty(context, {channels}), invstd = empty(context, {channels});
  Tensor running_mean = random_tensor(context, {channels});
  Tensor running_var = Tensor::full(context, {channels}, 1.0);
  Tensor dgamma = empty(context, {channels}), dbeta = empty(context, {channels});
  const auto scratch = scratch_of(context, context->backend().batch_norm_workspace(p));
  const std::function<void()> forward = [=]() mutable {
    x.backend().batch_norm_forward_train(p, x.view(), {}, gamma.view(), beta.view(),
                                         running_mean.mutable_view(), running_var.mutable_view(),
                                         y.mutable_view(), mean.mutable_view(),
                                         invstd.mutable_view(), *scratch);
  };
  if (!backward) return {.run = forward, .bytes = bytes_of({x, y})};
  forward();
  return {.run =
              [=]() mutable {
                x.backend().batch_norm_backward(p, x.view(), {}, dy.view(), gamma.view(),
                                                beta.view(), mean.view(), invstd.view(),
                                                y.mutable_view(), {}, dgamma.mutable_view(),
                                                dbeta.mutable_view(), kOverwrite, *scratch);
              },
          .bytes = bytes_of({x, dy, y})};
}

Workload max_pool(const ContextPtr& context, const Shape& maps, bool backward) {
  const Pool2dProblem p{
      .n = maps[0], .h = maps[1], .w = maps[2], .c = maps[3], .kernel = 2, .stride = 2};
  Tensor x = random_tensor(context, maps);
  Tensor y = random_tensor(context, {maps[0], maps[1] / 2, maps[2] / 2, maps[3]});
  Tensor argmax = Tensor::full(context, y.shape(), 3, DType::u8);
  const std::int64_t bytes = bytes_of({x, y, argmax});
  if (backward)
    return {.run =
                [=]() mutable {
                  x.backend().max_pool_backward(p, argmax.view(), y.view(), x.mutable_view(),
                                                kOverwrite);
                },
            .bytes = bytes};
  return {.run =
              [=]() mutable {
                x.backend().max_pool_forward(p, x.view(), y.mutable_view(), argmax.mutable_view());
              },
          .bytes = bytes};
}

Workload adaptive_pool(const ContextPtr& context, const Shape& maps, bool backward) {
  Tensor x = random_tensor(context, maps);
  Tensor y = random_tensor(context, {maps[0], maps[1] / 4, maps[2] / 4, maps[3]});
  const std::int64_t bytes = bytes_of({x, y});
  if (backward)
    return {.run =
                [=]() mutable {
                  x.backend().adaptive_avg_pool_backward(y.view(), x.mutable_view(), kOverwrite);
                },
            .bytes = bytes};
  return {
      .run = [=]() mutable { x.backend().adaptive_avg_pool_forward(x.view(), y.mutable_view()); },
      .bytes = bytes};
}

Workload add(const ContextPtr& context, const Shape& maps) {
  const Tensor a = random_tensor(context, maps), b = random_tensor(context, maps);
  Tensor out = empty(context, maps);
  return {.run = [=]() mutable { a.backend().add(a.view(), b.view(), out.mutable_view()); },
          .bytes = bytes_of({a, b, out})};
}

Workload cast(const ContextPtr& context, const Shape& maps, DType from, DType to) {
  const Tensor x = Tensor::full(context, maps, 1.25, from);
  Tensor y = empty(context, maps, to);
  return {.run = [=]() mutable { x.backend().cast(x.view(), y.mutable_view()); },
          .bytes = bytes_of({x, y})};
}

Workload sgd(const ContextPtr& context, const Shape& weights) {
  Tensor w = random_tensor(context, weights), momentum = random_tensor(context, weights);
  const Tensor grad = random_tensor(context, weights);
  return {
      .run =
          [=]() mutable {
            const SgdParameter parameter{w.mutable_view(), grad.view(), momentum.mutable_view()};
            w.backend().sgd({.learning_rate = 1e-6, .momentum = 0.9, .weight_decay = 5e-4},
                            {&parameter, 1});
          },
      .bytes = 5 * w.bytes()};
}

Workload step(const ContextPtr& context, double width, std::int64_t batch) {
  const auto net = std::make_shared<WholeNet>(context, width, batch);
  const std::int64_t flops = 3 * net->model->flops(net->model->input_shape(batch));
  return {.run = [=] { net->trainer.train(net->images.batch, {}); },
          .flops = static_cast<double>(flops)};
}

Workload local_step(const ContextPtr& context, double width, std::int64_t batch) {
  const auto unit = std::make_shared<OneUnit>(context, width, batch);
  const nn::Model& model = *unit->model;
  const std::int64_t flops = 2 * model.unit(1).flops(model.unit_input_shape(1, batch)) +
                             3 * unit->auxiliary->flops(model.unit_input_shape(2, batch));
  return {.run = [=] { unit->block.train(unit->images.batch, {}); },
          .flops = static_cast<double>(flops)};
}

}  // namespace nf::bench
