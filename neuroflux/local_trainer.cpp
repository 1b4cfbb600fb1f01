#include "neuroflux/local_trainer.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "engine/random.h"
#include "engine/timer.h"
#include "neuroflux/cache_plan.h"
#include "neuroflux/cache_values.h"
#include "neuroflux/local_block.h"
#include "neuroflux/streamed_forward.h"

namespace nf {
namespace {

// As the loader prepares them in an epoch: augmented, if it augments.
ReadSamples reader_of(const nn::Loader& loader, std::int64_t epoch) {
  return
      [&loader, epoch](std::int64_t first, std::int64_t n) { return loader.read(first, n, epoch); };
}

// As the plan counted the bytes.
nn::SampleForm planned_form(const Plan& plan, const nn::TrainingData& data) {
  if (!plan.format) return nn::SampleForm::values;
  const nn::PixelFormat format = data.pixel_format();
  NF_CHECK(*plan.format == format,
           "train: the plan counts on images stored as {} and {} tables, the data has {} and {}",
           plan.format->stored.str(), plan.format->tables, format.stored.str(), format.tables);
  return nn::SampleForm::pixels;
}

class Run {
 public:
  Run(const ContextPtr& context, const LocalNet& net, const Plan& plan,
      const nn::TrainingData& data, const LocalTrainingOptions& options,
      const TrainingObserver& observer)
      : context_(context),
        net_(net),
        plan_(plan),
        data_(data),
        options_(options),
        observer_(observer),
        caches_(run_cache_options(options)),
        form_(planned_form(plan, data)),
        train_(data.train(form_)),
        // Several views are of augmented images; a single one that stays would only be a bias.
        train_in_order_(plan.cache_views > 1 ? data.train_augmented_in_order(form_)
                                             : data.train_in_order(form_)),
        validation_(data.validation(form_)) {
    for (const BlockPlan& block : plan.blocks)
      for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i)
        batches_.push_back(block.batch);
    run_key_ = hash_name(origin());
  }

  LocalResult run() {
    check_caches(plan_, data_, options_);
    made_folder_ = !std::filesystem::exists(options_.cache_folder);
    try {
      train_blocks();
      result_.chosen = options_.deliver_whole_net
                           ? result_.exits.size() - 1
                           : choose_exit(result_.exits, options_.exit_tolerance);
      test();
    } catch (...) {
      remove_all_caches();
      throw;
    }
    remove_empty_folder();
    return std::move(result_);
  }

 private:
  // All that the values in a cache hang on, but for the images themselves.
  std::string origin() const {
    const nn::ModelOptions& model = net_.model().options();
    const nn::OptimizerOptions& optimizer = options_.optimizer;
    std::string text = fmt::format(
        "{} {} {} {} {}; {} {} {} {} {} {}; {} {} {} {} {} {}; {} {} {}", net_.model().name(),
        model.input.str(), model.classes, model.width, model.dropout, to_string(optimizer.kind),
        optimizer.learning_rate, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay,
        optimizer.max_gradient_norm, options_.epochs, options_.seed, to_string(options_.schedule),
        options_.warmup_epochs, options_.label_smoothing, options_.reference_batch,
        data_.train_count(), data_.validation_count(), plan_.auxiliary_rule);
    text += fmt::format(" {} {} {}", plan_.cache_views, data_.transform().crop_padding,
                        data_.transform().flip);
    for (const UnitPlan& unit : plan_.units) text += fmt::format(" {}", unit.auxiliary_width);
    for (const BlockPlan& block : plan_.blocks)
      text += fmt::format(" {}-{}:{}", block.first_unit, block.last_unit, block.batch);
    return text;
  }

  void train_blocks() {
    for (std::size_t k = 0; k < plan_.blocks.size(); ++k) {
      train_block(k);
      if (k > 0) remove_caches(k - 1);
      if (k + 1 == plan_.blocks.size()) break;
      if (will_stop()) {
        result_.stopped_early = true;
        break;
      }
    }
  }

  const BlockPlan& block_plan(std::size_t k) const { return plan_.blocks[k]; }

  // What block k leaves for the next.
  CacheGeneration generation(std::size_t k) const {
    CacheGeneration caches = cache_generation(plan_, k, data_, options_.cache_dtype);
    for (auto* set : {&caches.train, &caches.validation})
      for (CacheSpec& spec : *set) spec.provenance = run_key_ ^ hash_name(spec.name);
    return caches;
  }

  // Caches that the block before k left, in the data set's order or shuffled for training.
  std::unique_ptr<ViewedReader> cached(const std::vector<CacheSpec>& views,
                                       const nn::Loader& origin, std::size_t k, LocalBlock& block,
                                       bool shuffle) {
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

  CacheReadOptions read_options(const CacheSpec& spec, std::int64_t view, const nn::Loader& origin,
                                std::size_t k, LocalBlock& block, bool shuffle) {
    CacheReadOptions read;
    read.shuffle = shuffle;
    read.seed = options_.seed;
    read.provenance = spec.provenance;
    read.warn = observer_.on_message;
    // The block makes room first, so that recomputing takes no more than training a unit did.
    read.recompute = [this, &origin, &block, view, last = block_plan(k).first_unit - 1](
                         std::int64_t first, std::int64_t n, float* out) {
      block.leave_device();
      const StreamedForward forward(context_, net_, result_.weights, batches_, round_between());
      const std::vector<float> outputs = forward.outputs(origin.read(first, n, view), last);
      std::copy(outputs.begin(), outputs.end(), out);
      block.return_to_device();
    };
    return read;
  }

  // Features crossed each border between blocks in the cache's type, and must again.
  BetweenUnits round_between() const {
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

  void train_block(std::size_t k) {
    const BlockPlan& planned = block_plan(k);
    const Stage stage{options_.method, static_cast<std::int64_t>(k + 1),
                      static_cast<std::int64_t>(plan_.blocks.size())};
    BlockResult result{.plan = planned};
    Pool& pool = context_->pool();
    pool.reset_peak();
    TraceScope trace(pool, observer_.trace);
    if (observer_.trace != nullptr) observer_.trace->set_stage(describe(stage));
    LocalBlock block(context_, net_.range(planned.first_unit, planned.last_unit),
                     net_.input_sample(planned.first_unit),
                     scaled_optimizer(options_, planned.batch), options_.seed);
    caches_.host().reset_peak();
    const CacheGeneration input = k == 0 ? CacheGeneration{} : generation(k - 1);
    std::unique_ptr<ViewedReader> train, validation;
    if (k > 0) {
      train = cached(input.train, *train_in_order_, k, block, true);
      if (data_.validation_count() > 0)
        validation = cached(input.validation, *validation_, k, block, false);
    }
    const auto source_of = [](auto& cache, auto& loader) -> nn::BatchSource& {
      if (cache) return *cache;
      return *loader;
    };
    nn::BatchSource& train_source = source_of(train, train_);
    nn::BatchSource* validation_source = nullptr;
    if (data_.validation_count() > 0) validation_source = &source_of(validation, validation_);
    nn::FitOptions fit = fit_options(options_, planned.batch, data_.train_count());
    fit.name = describe(stage);
    const nn::FitResult fitted =
        nn::fit(block, train_source, validation_source, fit, fit_observer(observer_, stage, trace));
    result.train_seconds = fitted.train_seconds;
    result.evaluation_seconds = fitted.evaluation_seconds;
    if (train) result.cache_wait_seconds = train->wait_seconds();
    result_.weights.merge(block.state());
    record_exits(planned, fitted.epochs.back());
    if (k + 1 < plan_.blocks.size() && !will_stop()) {
      const Timer timer;
      train.reset();
      const CacheGeneration output = generation(k);
      if (k > 0) train = cached(input.train, *train_in_order_, k, block, false);
      nn::BatchSource& in_order = source_of(train, train_in_order_);
      const double waited = validation ? validation->wait_seconds() : 0.0;
      for (std::size_t view = 0; view < output.train.size(); ++view)
        result.fill_wait_seconds += fill(output.train[view], static_cast<std::int64_t>(view), k,
                                         block, in_order, input.train, stage);
      for (const CacheSpec& spec : output.validation)
        result.fill_wait_seconds +=
            fill(spec, 0, k, block, *validation_source, input.validation, stage);
      if (train) result.fill_wait_seconds += train->wait_seconds();
      if (validation) result.fill_wait_seconds += validation->wait_seconds() - waited;
      result.cache_seconds = timer.seconds();
    }
    result.cache_host_bytes = caches_.host().peak();
    result.measured_peak_bytes = pool.stats().peak_reserved;
    result_.train_seconds += result.train_seconds + result.cache_seconds;
    result_.evaluation_seconds += result.evaluation_seconds;
    result_.predicted_peak_bytes =
        std::max(result_.predicted_peak_bytes, planned.predicted_peak_bytes);
    result_.measured_peak_bytes = std::max(result_.measured_peak_bytes, result.measured_peak_bytes);
    result_.blocks.push_back(std::move(result));
  }

  void report_batch(const Stage& stage) const {
    if (observer_.on_batch) observer_.on_batch(stage);
  }

  bool will_stop() const {
    return options_.stop_when_saturated && data_.validation_count() > 0 &&
           saturated(result_.exits, options_.patience, options_.improvement);
  }

  void record_exits(const BlockPlan& planned, const nn::EpochMetrics& last_epoch) {
    for (std::int64_t i = planned.first_unit; i <= planned.last_unit; ++i) {
      const UnitPlan& unit = plan_.units[static_cast<std::size_t>(i)];
      const auto output = static_cast<std::size_t>(i - planned.first_unit);
      result_.exits.push_back({i, unit.exit_parameters, unit.exit_flops,
                               last_epoch.outputs[output].validation_accuracy});
    }
  }

  // Runs the trained block over a whole set, in its order, and writes what comes out. `read` are
  // the caches of the source, none for images. Returns the seconds that writing was waited for.
  double fill(const CacheSpec& spec, std::int64_t view, std::size_t k, LocalBlock& block,
              nn::BatchSource& source, const std::vector<CacheSpec>& read, const Stage& stage) {
    // The source's epoch begins after the writer has its buffers.
    const std::int64_t reserved =
        read.empty() ? 0
                     : CacheReader::epoch_host_bytes(read.front(), {.shuffle = false},
                                                     block_plan(k).batch, options_.cache_place);
    CacheWriter writer = caches_.writer(spec, reserved);
    const std::int64_t output_size = block.output_sample_shape().numel();
    std::vector<float> output;
    source.start(block_plan(k).batch, view);
    while (const nn::Batch* batch = source.next()) {
      output.resize(static_cast<std::size_t>(batch->size * output_size));
      block.forward(nn::host_batch(*batch, block.sample_shape()), output.data());
      writer.append(output.data(), batch->labels.data(), batch->size);
      report_batch(stage);
    }
    writer.close();
    return writer.wait_seconds();
  }

  void remove_caches(std::size_t k) {
    const CacheGeneration caches = generation(k);
    for (const auto* set : {&caches.train, &caches.validation})
      for (const CacheSpec& spec : *set) caches_.remove(spec.name);
  }

  // After a failure: what can't be removed must not hide why the run failed.
  void remove_all_caches() noexcept {
    for (std::size_t k = 0; k < plan_.blocks.size(); ++k) try {
        remove_caches(k);
      } catch (const Error&) {
      }
    remove_empty_folder();
  }

  void remove_empty_folder() const noexcept {
    std::error_code not_empty;
    if (made_folder_) std::filesystem::remove(options_.cache_folder, not_empty);
  }

  void test() {
    if (data_.test_count() == 0) return;
    const Timer timer;
    const std::unique_ptr<nn::Loader> source = data_.test(form_);
    const StreamedForward forward(context_, net_, result_.weights, batches_);
    context_->pool().reset_peak();
    const std::int64_t correct = forward.count_correct(reader_of(*source, 0), source->count(),
                                                       result_.exits[result_.chosen].unit);
    result_.test_accuracy = static_cast<double>(correct) / static_cast<double>(data_.test_count());
    result_.evaluation_seconds += timer.seconds();
    result_.measured_peak_bytes =
        std::max(result_.measured_peak_bytes, context_->pool().stats().peak_reserved);
  }

  ContextPtr context_;
  const LocalNet& net_;
  const Plan& plan_;
  const nn::TrainingData& data_;
  const LocalTrainingOptions& options_;
  const TrainingObserver& observer_;
  RunCaches caches_;
  nn::SampleForm form_;
  std::unique_ptr<nn::Loader> train_, train_in_order_, validation_;
  std::vector<std::int64_t> batches_;  // by unit
  std::uint64_t run_key_ = 0;
  bool made_folder_ = false;
  LocalResult result_;
};

}  // namespace

LocalResult train_locally(const ContextPtr& context, const LocalNet& net, const Plan& plan,
                          const nn::TrainingData& data, const LocalTrainingOptions& options,
                          const TrainingObserver& observer) {
  NF_CHECK(plan.fits && !plan.blocks.empty(),
           "train: the plan does not fit its budget of {} bytes; the least that does is {}",
           plan.budget, plan.minimum_budget);
  NF_CHECK(options.reference_batch >= 1, "train: the reference batch must be at least 1, got {}",
           options.reference_batch);
  return Run(context, net, plan, data, options, observer).run();
}

nn::StateDict exit_weights(const LocalNet& net, const nn::StateDict& weights, std::int64_t unit) {
  nn::StateDict chosen;
  ExitNet exit(net, unit);
  exit.visit([&](nn::Parameter& parameter) {
    const auto found = weights.find(parameter.name);
    NF_CHECK(found != weights.end(), "exit: {} was not trained", parameter.name);
    chosen.insert(*found);
  });
  return chosen;
}

}  // namespace nf
