#include "neuroflux/local_trainer.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "engine/random.h"
#include "engine/timer.h"
#include "neuroflux/activation_cache.h"
#include "neuroflux/cache_values.h"
#include "neuroflux/local_block.h"
#include "neuroflux/streamed_forward.h"

namespace nf {
namespace {

ReadSamples reader_of(const nn::Loader& loader) {
  return [&loader, size = loader.sample_shape().numel()](std::int64_t first, std::int64_t n,
                                                         float* images, std::int32_t* labels) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int32_t label = loader.read_sample(first + i, images + i * size);
      if (labels != nullptr) labels[i] = label;
    }
  };
}

// One of the two sets that go from block to block: the loader at first, then a cache.
enum class Set { train, validation };

std::string cache_name(Set set, std::size_t block) {
  return fmt::format("{}-after-block-{}", set == Set::train ? "train" : "validation", block + 1);
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
        train_(data.train()),
        train_in_order_(data.train_in_order()),
        validation_(data.validation()) {
    for (const BlockPlan& block : plan.blocks)
      for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i)
        batches_.push_back(block.batch);
    run_key_ = hash_name(origin());
  }

  LocalResult run() {
    if (plan_.blocks.size() > 1) check_cache_folder(options_.cache_folder, plan_.cache_bytes);
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

  // What the block before k left, in the data set's order or shuffled for training.
  std::unique_ptr<CacheReader> cached(Set set, std::size_t k, LocalBlock& block, bool shuffle) {
    const nn::Loader& origin = set == Set::train ? *train_in_order_ : *validation_;
    CacheReadOptions read;
    read.shuffle = shuffle;
    read.seed = options_.seed;
    read.provenance = provenance(set, k - 1);
    read.warn = observer_.on_message;
    // The block makes room first, so that recomputing takes no more than training a unit did.
    read.recompute = [this, &origin, &block, last = block_plan(k).first_unit - 1](
                         std::int64_t first, std::int64_t n, float* out) {
      block.leave_device();
      std::vector<float> images(static_cast<std::size_t>(n * origin.sample_shape().numel()));
      reader_of(origin)(first, n, images.data(), nullptr);
      const StreamedForward forward(context_, net_, result_.weights, batches_, round_between());
      const std::vector<float> outputs = forward.outputs(std::move(images), n, last);
      std::copy(outputs.begin(), outputs.end(), out);
      block.return_to_device();
    };
    auto reader = std::make_unique<CacheReader>(options_.cache_folder, cache_name(set, k - 1),
                                                std::move(read));
    const Shape expected = net_.input_sample(block_plan(k).first_unit);
    NF_CHECK(reader->sample_shape() == expected && reader->count() == origin.count(),
             "activation cache '{}': holds {} samples of {}, block {} needs {} of {}",
             cache_name(set, k - 1), reader->count(), reader->sample_shape().str(), k + 1,
             origin.count(), expected.str());
    return reader;
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

  std::uint64_t provenance(Set set, std::size_t k) const {
    return run_key_ ^ hash_name(cache_name(set, k));
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
    std::unique_ptr<CacheReader> train, train_in_order, validation;
    if (k > 0) {
      train = cached(Set::train, k, block, true);
      train_in_order = cached(Set::train, k, block, false);
      if (data_.validation_count() > 0) validation = cached(Set::validation, k, block, false);
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
      fill(Set::train, k, block, source_of(train_in_order, train_in_order_), stage);
      if (validation_source != nullptr) fill(Set::validation, k, block, *validation_source, stage);
      result.cache_seconds = timer.seconds();
    }
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

  // Runs the trained block over a whole set, in its order, and writes what comes out.
  void fill(Set set, std::size_t k, LocalBlock& block, nn::BatchSource& source,
            const Stage& stage) {
    CacheWriter writer(options_.cache_folder, {.name = cache_name(set, k),
                                               .count = source.count(),
                                               .sample_shape = block.output_sample_shape(),
                                               .dtype = options_.cache_dtype,
                                               .provenance = provenance(set, k)});
    const std::int64_t output_size = block.output_sample_shape().numel();
    std::vector<float> output;
    source.start(block_plan(k).batch, 0);
    while (const nn::Batch* batch = source.next()) {
      output.resize(static_cast<std::size_t>(batch->size * output_size));
      block.forward(batch->images.data(), batch->size, output.data());
      writer.append(output.data(), batch->labels.data(), batch->size);
      report_batch(stage);
    }
    writer.close();
  }

  void remove_caches(std::size_t k) {
    for (Set set : {Set::train, Set::validation})
      remove_cache(options_.cache_folder, cache_name(set, k));
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
    const std::unique_ptr<nn::Loader> source = data_.test();
    const StreamedForward forward(context_, net_, result_.weights, batches_);
    context_->pool().reset_peak();
    const std::int64_t correct = forward.count_correct(reader_of(*source), source->count(),
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
  std::unique_ptr<nn::Loader> train_, train_in_order_, validation_;
  std::vector<std::int64_t> batches_;  // by unit
  std::uint64_t run_key_ = 0;
  bool made_folder_ = false;
  LocalResult result_;
};

}  // namespace

std::string describe(const Stage& stage) {
  return stage.blocks == 0 ? stage.method
                           : fmt::format("{} block {}/{}", stage.method, stage.block, stage.blocks);
}

nn::FitObserver fit_observer(const TrainingObserver& observer, const Stage& stage,
                             TraceScope& trace) {
  return {.on_step =
              [&observer, &trace, stage](const nn::StepProgress& progress) {
                trace.end();
                if (observer.on_step) observer.on_step(stage, progress);
              },
          .on_epoch =
              [&observer, stage](const nn::EpochMetrics& metrics) {
                if (observer.on_epoch) observer.on_epoch(stage, metrics);
              },
          .on_evaluated =
              [&observer, stage] {
                if (observer.on_batch) observer.on_batch(stage);
              }};
}

nn::OptimizerOptions scaled_optimizer(const TrainingOptions& options, std::int64_t batch) {
  nn::OptimizerOptions scaled = options.optimizer;
  scaled.learning_rate *= static_cast<double>(batch) / static_cast<double>(options.reference_batch);
  return scaled;
}

nn::FitOptions fit_options(const TrainingOptions& options, std::int64_t batch,
                           std::int64_t train_count) {
  const double epoch_steps =
      std::ceil(static_cast<double>(train_count) / static_cast<double>(batch));
  const double steps = epoch_steps * static_cast<double>(options.epochs);
  nn::FitOptions fit;
  fit.epochs = options.epochs;
  fit.batch = batch;
  fit.schedule.kind = options.schedule;
  fit.schedule.gamma = options.gamma;
  const double cut_epochs =
      options.step_epochs > 0.0 ? options.step_epochs : static_cast<double>(options.epochs) / 3.0;
  fit.schedule.step_size =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(cut_epochs * epoch_steps)));
  fit.schedule.warmup_steps =
      static_cast<std::int64_t>(std::min(options.warmup_epochs * epoch_steps, steps - 1.0));
  fit.label_smoothing = options.label_smoothing;
  fit.seed = options.seed;
  return fit;
}

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
