// Evaluates a saved net, its batch norms folded, on a test set, under a budget.
#include <algorithm>

#include "engine/text.h"
#include "engine/timer.h"
#include "neuroflux/experiment.h"
#include "neuroflux/saved_net.h"
#include "nn/stage_batch.h"
#include "nn/train_step.h"

namespace nf {
namespace {

nn::ImageSet test_images(const ExperimentOptions& options) {
  if (options.data == "generated") {
    nn::GeneratedOptions test = generated_test_set(options.generated);
    return nn::generate_images(test);
  }
  const nn::IdxPaths paths = nn::find_idx(options.data, nn::Split::test);
  return nn::load_idx_images(paths.images, paths.labels);
}

nn::StepResult run_batch(const ContextPtr& context, nn::Module& net, const nn::HostBatch& batch) {
  auto [x, y] = nn::stage_batch(context, batch);
  return nn::evaluate_step({"exit", &net, nullptr, nullptr}, std::move(x), y);
}

}  // namespace

Evaluation evaluate_saved(const std::filesystem::path& weights, const ExperimentOptions& options) {
  LoadedNet saved(weights);
  const SavedNet& description = saved.description();
  nn::Module& net = saved.module();
  auto images = std::make_shared<nn::ImageSet>(test_images(options));
  const std::int32_t largest = *std::max_element(images->labels.begin(), images->labels.end());
  NF_CHECK(largest < description.options.classes,
           "eval: {} was trained on {} classes, labels 0 to {}; {} has a label {}",
           weights.string(), description.options.classes, description.options.classes - 1,
           options.data, largest);
  std::vector<std::int64_t> indices = nn::all_indices(*images);
  const std::int64_t limit = options.data_options.test_limit;
  if (limit > 0 && limit < images->count) indices.resize(static_cast<std::size_t>(limit));
  ContextOptions target = options.device;
  target.budget = options.budget;
  const ContextPtr meta = make_meta_context(target);
  nn::Loader loader(
      images, indices, nn::Transform(description.transform),
      {.form = nn::sample_form(meta->backend()), .threads = options.data_options.threads});
  const Shape sample = loader.sample_shape();
  NF_CHECK(sample == description.options.input, "eval: {} was trained on images {}, {} has {}",
           weights.string(), description.options.input.str(), options.data, sample.str());

  const std::int64_t budget = target.budget > 0 ? target.budget : meta->backend().memory_bytes();
  const auto peak = [&](std::int64_t batch) {
    meta->pool().reset_peak();
    net.materialize(meta, 0);
    net.fold_batch_norms();
    for (const std::int64_t size : batch_sizes(loader.count(), batch))
      run_batch(meta, net, {.size = size, .sample = sample, .format = loader.format()});
    net.release();
    return meta->pool().stats().peak_reserved;
  };
  Evaluation result;
  result.batch = largest_batch(std::min(options.batch, loader.count()), budget, peak);
  if (result.batch == 0)
    throw DoesNotFit(fmt::format("eval: {} needs at least {} bytes ({}), the budget is {} bytes",
                                 weights.string(), peak(1), format_bytes_up(peak(1)), budget));
  result.model = description.model;
  result.exit_unit = description.exit_unit;
  result.parameters = net.parameter_count();
  result.images = loader.count();
  const ContextPtr context = Context::create(target);
  net.materialize(context, saved.weights());
  net.fold_batch_norms();
  std::int64_t correct = 0;
  const Timer timer;
  loader.start(result.batch, 0);
  while (const nn::Batch* batch = loader.next())
    correct += run_batch(context, net, nn::host_batch(*batch, sample)).correct;
  const double seconds = timer.seconds();
  net.release();
  result.accuracy = static_cast<double>(correct) / static_cast<double>(result.images);
  result.images_per_second = static_cast<double>(result.images) / seconds;
  result.peak_bytes = context->pool().stats().peak_reserved;
  return result;
}

}  // namespace nf
