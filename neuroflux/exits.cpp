#include "neuroflux/exits.h"

#include <algorithm>

#include "engine/timer.h"
#include "nn/stage_batch.h"

namespace nf {

std::size_t choose_exit(const std::vector<ExitResult>& exits, double tolerance, double accuracy) {
  NF_CHECK(!exits.empty(), "exits: none was trained");
  double best = 0.0;
  for (const ExitResult& exit : exits) best = std::max(best, exit.validation_accuracy);
  const double enough = has_accuracy(exits, accuracy) ? accuracy : best - tolerance;
  std::size_t chosen = exits.size();
  for (std::size_t i = 0; i < exits.size(); ++i) {
    if (exits[i].validation_accuracy < enough) continue;
    if (chosen == exits.size() || exits[i].parameters < exits[chosen].parameters) chosen = i;
  }
  return chosen;
}

bool has_accuracy(const std::vector<ExitResult>& exits, double accuracy) {
  return accuracy > 0.0 && std::ranges::any_of(exits, [=](const ExitResult& exit) {
           return exit.validation_accuracy >= accuracy;
         });
}

bool saturated(const std::vector<ExitResult>& exits, std::int64_t patience, double improvement) {
  const auto count = static_cast<std::int64_t>(exits.size());
  if (count <= patience) return false;
  double before = 0.0, recent = 0.0;
  for (std::int64_t i = 0; i < count; ++i) {
    double& best = i < count - patience ? before : recent;
    best = std::max(best, exits[static_cast<std::size_t>(i)].validation_accuracy);
  }
  return recent <= before + improvement;
}

ExitNet::ExitNet(const LocalNet& net, std::int64_t unit) {
  for (std::int64_t i = 0; i <= unit; ++i) parts_.push_back(&net.model().unit(i));
  parts_.push_back(&net.classifier(unit));
}

Tensor ExitNet::forward(const nn::Pass& pass, const Tensor& x) {
  Tensor features = x;
  for (nn::Module* part : parts_) features = part->forward(pass, features);
  return features;
}

Shape ExitNet::output_shape(const Shape& x) const {
  Shape shape = x;
  for (const nn::Module* part : parts_) shape = part->output_shape(shape);
  return shape;
}

std::int64_t ExitNet::flops(const Shape& x) const {
  Shape shape = x;
  std::int64_t sum = 0;
  for (const nn::Module* part : parts_) {
    sum += part->flops(shape);
    shape = part->output_shape(shape);
  }
  return sum;
}

void ExitNet::visit(const std::function<void(nn::Parameter&)>& visitor) {
  for (nn::Module* part : parts_) part->visit(visitor);
}

void ExitNet::fold_batch_norms() {
  for (nn::Module* part : parts_) part->fold_batch_norms();
}

InferenceSpeed measure_inference(nn::Module& net, const Shape& sample_shape,
                                 const ContextOptions& target, std::int64_t max_batch,
                                 double least_seconds) {
  const auto run = [&](const ContextPtr& context, std::int64_t batch, const float* images) {
    const Tensor x =
        nn::stage_images(context, {.size = batch, .sample = sample_shape, .images = images});
    net.forward({}, x);
    context->backend().synchronize();
  };
  const ContextPtr meta = make_meta_context(target);
  const auto peak = [&](std::int64_t batch) {
    meta->pool().reset_peak();
    net.materialize(meta, 0);
    net.fold_batch_norms();
    run(meta, batch, nullptr);
    net.release();
    return meta->pool().stats().peak_reserved;
  };
  const ContextPtr context = Context::create(target);
  InferenceSpeed speed;
  speed.batch = largest_batch(max_batch, context->pool().stats().limit, peak);
  if (speed.batch == 0) return speed;
  net.materialize(context, 0);
  net.fold_batch_norms();
  const std::vector<float> images(static_cast<std::size_t>(speed.batch * sample_shape.numel()),
                                  0.5F);
  constexpr std::size_t kLeast = 5;
  std::vector<double> seconds;
  for (int warm_up = 0; warm_up < 2; ++warm_up) run(context, speed.batch, images.data());
  const Timer all;
  while (seconds.size() < kLeast || all.seconds() < least_seconds) {
    const Timer timer;
    run(context, speed.batch, images.data());
    seconds.push_back(timer.seconds());
  }
  net.release();
  std::nth_element(seconds.begin(),
                   seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2),
                   seconds.end());
  speed.images_per_second = static_cast<double>(speed.batch) / seconds[seconds.size() / 2];
  return speed;
}

}  // namespace nf
