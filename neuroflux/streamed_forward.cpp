#include "neuroflux/streamed_forward.h"

#include <algorithm>
#include <utility>

#include "nn/stage_batch.h"
#include "nn/train_step.h"

namespace nf {
namespace {

// Bounds the host memory that the features of one piece take.
constexpr std::int64_t kPiece = 512;

// A module that is on the device for the lifetime of the scope.
class OnDevice {
 public:
  OnDevice(nn::Module& module, const ContextPtr& context, const nn::StateDict& weights)
      : module_(module) {
    if (context->is_meta())
      module_.materialize(context, 0);
    else
      module_.materialize(context, weights);
  }
  ~OnDevice() { module_.release(); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  nn::Module& module_;
};

}  // namespace

StreamedForward::StreamedForward(ContextPtr context, const LocalNet& net,
                                 const nn::StateDict& weights, std::vector<std::int64_t> batches,
                                 BetweenUnits between)
    : context_(std::move(context)),
      net_(net),
      weights_(weights),
      batches_(std::move(batches)),
      between_(std::move(between)) {
  NF_CHECK(std::all_of(batches_.begin(), batches_.end(), [](auto batch) { return batch >= 1; }),
           "streamed forward: every batch must be at least 1");
}

std::vector<float> StreamedForward::outputs(const nn::Batch& samples,
                                            std::int64_t last_unit) const {
  const PhaseScope phase("stream");
  const std::int64_t count = samples.size;
  nn::HostBatch input = nn::host_batch(samples, net_.input_sample(0));
  std::vector<float> features;
  for (std::int64_t i = 0; i <= last_unit; ++i) {
    nn::Unit& unit = net_.model().unit(i);
    const UnitScope scope(unit.name());
    const OnDevice placed(unit, context_, weights_);
    const Shape output = net_.input_sample(i + 1);
    const std::int64_t batch = batches_[static_cast<std::size_t>(i)];
    std::vector<float> next(static_cast<std::size_t>(count * output.numel()));
    for (std::int64_t first = 0; first < count; first += batch) {
      const Tensor x =
          nn::stage_images(context_, input.part(first, std::min(batch, count - first)));
      unit.forward({}, x).copy_to_host(next.data() + first * output.numel());
    }
    features = std::move(next);
    if (between_ && i < last_unit) between_(i, features);
    input = {.size = count, .sample = output, .images = features.data()};
  }
  return features;
}

std::int64_t StreamedForward::count_correct(const ReadSamples& read, std::int64_t count,
                                            std::int64_t unit) const {
  nn::Module& classifier = net_.classifier(unit);
  const std::int64_t batch = batches_[static_cast<std::size_t>(unit)];
  std::int64_t correct = 0;
  for (std::int64_t first = 0; first < count; first += kPiece) {
    const nn::Batch samples = read(first, std::min(kPiece, count - first));
    const std::vector<float> outputs = this->outputs(samples, unit);
    const nn::HostBatch features{.size = samples.size,
                                 .sample = net_.input_sample(unit + 1),
                                 .images = outputs.data(),
                                 .labels = samples.labels.data()};
    const OnDevice placed(classifier, context_, weights_);
    const nn::Trainable exit{"exit", &classifier, nullptr, nullptr};
    for (std::int64_t at = 0; at < samples.size; at += batch) {
      auto [x, y] =
          nn::stage_batch(context_, features.part(at, std::min(batch, samples.size - at)));
      correct += nn::evaluate_step(exit, std::exchange(x, Tensor()), y).correct;
    }
  }
  return correct;
}

}  // namespace nf
