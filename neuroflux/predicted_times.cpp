// Times from FLOPs and bytes.
#include <limits>

#include "neuroflux/time_profile.h"
#include "nn/bp_trainer.h"

namespace nf {
namespace {

class PredictedTimes : public TimeModel {
 public:
  PredictedTimes(const ContextOptions& target, const nn::OptimizerOptions& optimizer,
                 const DeviceSpeed& speed)
      : meta_(make_meta_context(target)), optimizer_(optimizer), speed_(speed) {}

  const char* source() const override { return "predicted"; }
  StorageSpeed storage() override { return speed_.storage; }

  PassTimes unit(const LocalUnit& unit, const Shape& sample, std::int64_t max_batch) override {
    const Shape one = batch_of_one(sample);
    const auto body = static_cast<double>(unit.unit->flops(one));
    const auto head = static_cast<double>(unit.classifier->flops(unit.unit->output_shape(one)));
    const std::int64_t parameters =
        unit.unit->parameter_count() + unit.classifier->parameter_count();
    LocalBlock block(meta_, {unit}, sample, optimizer_, 0);
    PassTimes times;
    times.stage = proportional(staging(sample), max_batch);
    times.train = line([&](std::int64_t n) { block.train({.size = n, .sample = sample}, {}); },
                       3.0 * (body + head) - static_cast<double>(unit.unit->first_flops(one)),
                       updates(parameters), max_batch);
    times.evaluate = line([&](std::int64_t n) { block.evaluate({.size = n, .sample = sample}); },
                          body + head, 0.0, max_batch);
    times.forward =
        line([&](std::int64_t n) { block.forward({.size = n, .sample = sample}, nullptr); }, body,
             0.0, max_batch);
    return times;
  }

  PassTimes whole(nn::Model& model, const nn::Segments& segments, std::int64_t max_batch) override {
    const auto flops = static_cast<double>(model.flops(model.input_shape(1)));
    const Shape& sample = model.options().input;
    std::unique_ptr<nn::WholeNetTrainer> trainer;
    if (segments.empty())
      trainer = std::make_unique<nn::BpTrainer>(meta_, model, optimizer_, 0);
    else
      trainer = std::make_unique<nn::CheckpointTrainer>(meta_, model, optimizer_, 0, segments);
    const double passes = segments.empty() ? 3.0 : 4.0;  // one more forward
    PassTimes times;
    times.stage = proportional(staging(sample), max_batch);
    times.train = line([&](std::int64_t n) { trainer->train({.size = n, .sample = sample}, {}); },
                       passes * flops, updates(model.parameter_count()), max_batch);
    times.evaluate = line([&](std::int64_t n) { trainer->evaluate({.size = n, .sample = sample}); },
                          flops, 0.0, max_batch);
    times.forward = times.evaluate;
    return times;
  }

 private:
  double staging(const Shape& sample) const {
    return static_cast<double>(sample.numel()) * 4.0 / speed_.host_bytes_per_second;
  }

  static BatchTime proportional(double per_sample, std::int64_t batch) {
    return BatchTime({{batch, per_sample * static_cast<double>(batch)}});
  }

  // An update reads and writes parameter and state, and reads the gradient.
  double updates(std::int64_t parameters) const {
    const double accesses = optimizer_.kind == nn::OptimizerKind::adamw ? 7.0 : 5.0;
    return accesses * 4.0 * static_cast<double>(parameters) / speed_.bytes_per_second;
  }

  template <typename Run>
  BatchTime line(const Run& run, double flops_per_sample, double per_step,
                 std::int64_t max_batch) const {
    std::vector<BatchTime::Point> points;
    for (const std::int64_t batch : {std::int64_t{1}, max_batch}) {
      if (!points.empty() && batch == points.back().batch) continue;
      const PoolStats before = meta_->pool().stats();
      run(batch);
      const PoolStats after = meta_->pool().stats();
      const auto operators = static_cast<double>(after.allocations - before.allocations);
      const auto bytes = static_cast<double>(after.granted_ever - before.granted_ever);
      points.push_back(
          {batch, per_step + operators * speed_.seconds_per_operator +
                      flops_per_sample * static_cast<double>(batch) / speed_.flops_per_second +
                      2.0 * bytes / speed_.bytes_per_second});
    }
    return BatchTime(std::move(points));
  }

  ContextPtr meta_;
  nn::OptimizerOptions optimizer_;
  DeviceSpeed speed_;
};

}  // namespace

Shape batch_of_one(const Shape& sample) {
  std::vector<std::int64_t> extents{1};
  for (const std::int64_t extent : sample.extents()) extents.push_back(extent);
  return Shape{std::span<const std::int64_t>(extents)};
}

DeviceSpeed nominal_speed(const ContextOptions& target) {
  const StorageSpeed disk{1.0e9, 1.5e9};
  const auto threads = static_cast<double>(make_meta_context(target)->backend().threads());
  switch (target.device.kind) {
    case DeviceKind::cuda:
      return {30.0e12, 1.5e12, 8.0e-6, 20.0e9, disk};
    case DeviceKind::simt:
      return {1.0e9, 0.2e9, 2.0e-4, 8.0e9, disk};
    case DeviceKind::cpu:
    case DeviceKind::meta:
      break;
  }
  // A current core with wide vectors: a matrix product, and a copy read and written.
  return {100.0e9 * threads, 15.0e9 * threads, 8.0e-6, 10.0e9, disk};
}

StorageSpeed memory_speed() {
  constexpr double kNoWaiting = std::numeric_limits<double>::infinity();
  return {kNoWaiting, kNoWaiting};
}

std::unique_ptr<TimeModel> make_predicted_times(const ContextOptions& target,
                                                const nn::OptimizerOptions& optimizer,
                                                const DeviceSpeed& speed) {
  return std::make_unique<PredictedTimes>(target, optimizer, speed);
}

}  // namespace nf
