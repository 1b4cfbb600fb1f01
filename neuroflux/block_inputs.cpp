#include "neuroflux/block_inputs.h"

#include <algorithm>
#include <utility>

#include "engine/random.h"
#include "neuroflux/cache_plan.h"
#include "neuroflux/cache_values.h"
#include "neuroflux/provenance.h"

namespace nf {

Stage stage_of(const LocalTrainingOptions& options, const Plan& plan, std::size_t k) {
  return {options.method, static_cast<std::int64_t>(k + 1),
          static_cast<std::int64_t>(plan.blocks.size())};
}

nn::SampleForm planned_form(const Plan& plan, const nn::TrainingData& data) {
  if (!plan.format) return nn::SampleForm::values;
  const nn::PixelFormat format = data.pixel_format();
  NF_CHECK(*plan.format == format,
           "train: the plan counts on images stored as {} and {} tables, the data has {} and {}",
           plan.format->stored.str(), plan.format->tables, format.stored.str(), format.tables);
  return nn::SampleForm::pixels;
}

BlockInputs::BlockInputs(ContextPtr context, const LocalNet& net, const Plan& plan,
                         const nn::TrainingData& data, const LocalTrainingOptions& options,
                         const TrainingObserver& observer, const nn::StateDict& trained)
    : context_(std::move(context)),
      net_(net),
      plan_(plan),
      data_(data),
      options_(options),
      observer_(observer),
      trained_(trained),
      caches_(run_cache_options(options)),
      form_(planned_form(plan, data)),
      train_(data.train(form_)),
      // Several views are of augmented images; a single one that stays would only be a bias.
      train_in_order_(plan.cache_views > 1 ? data.train_augmented_in_order(form_)
                                           : data.train_in_order(form_)),
      validation_(data.validation_count() > 0 ? data.validation(form_) : nullptr) {
  for (const BlockPlan& block : plan.blocks)
    for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i)
      batches_.push_back(block.batch);
  run_key_ = data_hash(data) ^ hash_name(origin());
}

// All that the values in a cache hang on, but for images and weights.
std::string BlockInputs::origin() const {
  const nn::ModelOptions& model = net_.model().options();
  std::string text =
      fmt::format("{} {} {} {} {}; {}; {} {}", net_.model().name(), model.input.str(),
                  model.classes, model.width, model.dropout, training_text(options_, data_),
                  plan_.auxiliary_rule, plan_.cache_views);
  for (const UnitPlan& unit : plan_.units) text += fmt::format(" {}", unit.auxiliary_width);
  for (const BlockPlan& block : plan_.blocks)
    text += fmt::format(" {}-{}:{}", block.first_unit, block.last_unit, block.batch);
  return text;
}

std::unique_ptr<LocalBlock> BlockInputs::make_block(std::size_t k) const {
  const BlockPlan& planned = plan_.blocks[k];
  return std::make_unique<LocalBlock>(context_, net_.range(planned.first_unit, planned.last_unit),
                                      net_.input_sample(planned.first_unit),
                                      scaled_optimizer(options_, planned.batch), options_.seed);
}

CacheGeneration BlockInputs::generation(std::size_t k) const {
  CacheGeneration caches = cache_generation(plan_, k, data_, options_.cache_dtype);
  const std::uint64_t key =
      weights_hash(net_.range(0, plan_.blocks[k].last_unit), trained_, run_key_);
  for (auto* set : {&caches.train, &caches.validation})
    for (CacheSpec& spec : *set) spec.provenance = key ^ hash_name(spec.name);
  return caches;
}

nn::BatchSource& BlockInputs::Sources::train() const {
  if (train_) return *train_;
  return *train_images_;
}

nn::BatchSource* BlockInputs::Sources::validation() const {
  if (validation_) return validation_.get();
  return validation_images_;
}

double BlockInputs::Sources::train_wait_seconds() const {
  return train_ ? train_->wait_seconds() : 0.0;
}

double BlockInputs::Sources::validation_wait_seconds() const {
  return validation_ ? validation_->wait_seconds() : 0.0;
}

double BlockInputs::Sources::wait_seconds() const {
  return train_wait_seconds() + validation_wait_seconds();
}

BlockInputs::Sources BlockInputs::open(std::size_t k, LocalBlock& block, bool shuffle) {
  Sources sources;
  sources.train_images_ = shuffle ? train_.get() : train_in_order_.get();
  sources.validation_images_ = validation_.get();
  if (k == 0) return sources;
  const CacheGeneration input = generation(k - 1);
  sources.train_ = readers(input.train, *train_in_order_, k, block, shuffle);
  if (validation_) sources.validation_ = readers(input.validation, *validation_, k, block, false);
  return sources;
}

std::unique_ptr<ViewedReader> BlockInputs::readers(const std::vector<CacheSpec>& views,
                                                   const nn::Loader& origin, std::size_t k,
                                                   LocalBlock& block, bool shuffle) {
  std::vector<std::unique_ptr<CacheReader>> readers;
  for (const CacheSpec& spec : views) {
    const auto view = static_cast<std::int64_t>(readers.size());
    readers.push_back(
        caches_.reader(spec.name, read_options(spec, view, origin, k, block, shuffle)));
    const CacheSpec& found = readers.back()->spec();
    NF_CHECK(found.sample_shape == spec.sample_shape && found.count == spec.count,
             "activation cache '{}': holds {} samples of {}, block {} needs {} of {}", spec.name,
             found.count, found.sample_shape.str(), k + 1, spec.count, spec.sample_shape.str());
  }
  return std::make_unique<ViewedReader>(std::move(readers));
}

CacheReadOptions BlockInputs::read_options(const CacheSpec& spec, std::int64_t view,
                                           const nn::Loader& origin, std::size_t k,
                                           LocalBlock& block, bool shuffle) {
  CacheReadOptions read;
  read.shuffle = shuffle;
  read.seed = options_.seed;
  read.provenance = spec.provenance;
  read.warn = observer_.on_message;
  // The block makes room first, so that recomputing takes no more than training a unit did.
  read.recompute = [this, &origin, &block, view, last = plan_.blocks[k].first_unit - 1](
                       std::int64_t first, std::int64_t n, float* out) {
    block.leave_device();
    const StreamedForward forward(context_, net_, trained_, batches_, round_between());
    const std::vector<float> outputs = forward.outputs(origin.read(first, n, view), last);
    std::copy(outputs.begin(), outputs.end(), out);
    block.return_to_device();
  };
  return read;
}

// Features crossed each border between blocks in the cache's type, and must again.
BetweenUnits BlockInputs::round_between() const {
  return [this](std::int64_t unit, std::span<float> features) {
    const bool border = std::any_of(plan_.blocks.begin(), plan_.blocks.end(),
                                    [=](const BlockPlan& b) { return b.last_unit == unit; });
    if (!border || options_.cache_dtype == DType::f32) return;
    std::vector<std::byte> stored(features.size() *
                                  static_cast<std::size_t>(size_of(options_.cache_dtype)));
    encode_values(features, options_.cache_dtype, stored.data());
    decode_values(stored.data(), options_.cache_dtype, features);
  };
}

double BlockInputs::fill(std::size_t k, LocalBlock& block) {
  if (observer_.on_phase) observer_.on_phase(stage_of(options_, plan_, k), "filling cache");
  const CacheGeneration input = k == 0 ? CacheGeneration{} : generation(k - 1);
  const CacheGeneration output = generation(k);
  const Sources sources = open(k, block, false);
  double waited = 0.0;
  for (std::size_t view = 0; view < output.train.size(); ++view)
    waited += write(output.train[view], static_cast<std::int64_t>(view), k, block, sources.train(),
                    input.train);
  for (const CacheSpec& spec : output.validation)
    waited += write(spec, 0, k, block, *sources.validation(), input.validation);
  return waited + sources.wait_seconds();
}

// `read` are the caches of the source, none for images.
double BlockInputs::write(const CacheSpec& spec, std::int64_t view, std::size_t k,
                          LocalBlock& block, nn::BatchSource& source,
                          const std::vector<CacheSpec>& read) {
  const std::int64_t batch_size = plan_.blocks[k].batch;
  const Stage stage = stage_of(options_, plan_, k);
  // The source's epoch begins after the writer has its buffers.
  const std::int64_t reserved =
      read.empty() ? 0
                   : CacheReader::epoch_host_bytes(read.front(), {.shuffle = false}, batch_size,
                                                   options_.cache_place);
  CacheWriter writer = caches_.writer(spec, reserved);
  const std::int64_t output_size = block.output_sample_shape().numel();
  std::vector<float> output;
  source.start(batch_size, view);
  while (const nn::Batch* batch = source.next()) {
    output.resize(static_cast<std::size_t>(batch->size * output_size));
    block.forward(nn::host_batch(*batch, block.sample_shape()), output.data());
    writer.append(output.data(), batch->labels.data(), batch->size);
    if (observer_.on_batch) observer_.on_batch(stage);
  }
  writer.close();
  return writer.wait_seconds();
}

bool BlockInputs::available(std::size_t k) const {
  if (k == 0) return true;
  const CacheGeneration input = generation(k - 1);
  try {
    for (const auto* set : {&input.train, &input.validation})
      for (const CacheSpec& spec : *set) {
        CacheReadOptions read;
        read.provenance = spec.provenance;
        caches_.reader(spec.name, std::move(read));
      }
  } catch (const Error&) {
    return false;
  }
  return true;
}

void BlockInputs::make_again(std::size_t k) {
  for (std::size_t before = 0; before < k; ++before) {
    const std::unique_ptr<LocalBlock> block = make_block(before);
    block->load(trained_);
    fill(before, *block);
    if (before > 0) remove(before - 1);
  }
}

void BlockInputs::remove(std::size_t k) {
  const CacheGeneration caches = cache_generation(plan_, k, data_, options_.cache_dtype);
  for (const auto* set : {&caches.train, &caches.validation})
    for (const CacheSpec& spec : *set) caches_.remove(spec.name);
}

void BlockInputs::remove_all() noexcept {
  for (std::size_t k = 0; k < plan_.blocks.size(); ++k) try {
      remove(k);
    } catch (const Error&) {
    }
}

}  // namespace nf
