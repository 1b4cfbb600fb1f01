#include "neuroflux/local_trainer.h"

#include <algorithm>
#include <memory>

#include "engine/timer.h"
#include "neuroflux/block_inputs.h"
#include "neuroflux/cache_plan.h"
#include "neuroflux/streamed_forward.h"

namespace nf {
namespace {

// As the loader prepares them in an epoch: augmented, if it augments.
ReadSamples reader_of(const nn::Loader& loader, std::int64_t epoch) {
  return
      [&loader, epoch](std::int64_t first, std::int64_t n) { return loader.read(first, n, epoch); };
}

class Run {
 public:
  Run(const ContextPtr& context, const LocalNet& net, const Plan& plan,
      const nn::TrainingData& data, const LocalTrainingOptions& options,
      const TrainingObserver& observer, const Continuation& continuation)
      : context_(context),
        net_(net),
        plan_(plan),
        data_(data),
        options_(options),
        observer_(observer),
        continuation_(continuation),
        inputs_(context, net, plan, data, options, observer, state_.trained) {
    if (continuation.from != nullptr) state_ = *continuation.from;
    NF_CHECK(state_.blocks.size() <= plan.blocks.size(),
             "train: {} blocks are done, the plan has {}", state_.blocks.size(),
             plan.blocks.size());
  }

  LocalResult run() {
    check_caches(plan_, data_, options_);
    made_folder_ = continuation_.from != nullptr || !std::filesystem::exists(options_.cache_folder);
    try {
      train_blocks();
      result_.chosen = choose();
      test();
    } catch (...) {
      inputs_.remove_all();
      remove_empty_folder();
      throw;
    }
    remove_empty_folder();
    return complete_result();
  }

 private:
  void train_blocks() {
    const std::size_t first = state_.blocks.size();
    const bool goes_on = first < plan_.blocks.size() && !will_stop();
    // What a training that was cut off left: of use is what this block learns from.
    for (std::size_t k = 0; k < plan_.blocks.size() && continuation_.from != nullptr; ++k)
      if (k + 1 != first || !goes_on) inputs_.remove(k);
    if (goes_on) make_inputs(first);
    for (std::size_t k = first; k < plan_.blocks.size() && !will_stop(); ++k) {
      train_block(k);
      if (k > 0) inputs_.remove(k - 1);
    }
    result_.stopped_early = state_.blocks.size() < plan_.blocks.size();
  }

  void make_inputs(std::size_t k) {
    if (inputs_.available(k)) return;
    if (observer_.on_message)
      observer_.on_message(
          fmt::format("block {}: its activation cache is not there or not whole; "
                      "the blocks before it compute it again",
                      k + 1));
    inputs_.make_again(k);
  }

  void train_block(std::size_t k) {
    const BlockPlan& planned = plan_.blocks[k];
    const Stage stage = stage_of(options_, plan_, k);
    Pool& pool = context_->pool();
    pool.reset_peak();
    inputs_.host().reset_peak();
    TraceScope trace(pool, observer_.trace);
    if (observer_.trace != nullptr) observer_.trace->set_stage(describe(stage));
    const std::unique_ptr<LocalBlock> block = inputs_.make_block(k);
    if (!state_.epochs.empty()) {
      block->load(state_.weights);
      block->load_optimizers(state_.optimizer);
    }
    const BlockResult before = state_.partial;
    fit_block(k, *block, stage, trace, before);
    BlockResult result = state_.partial;
    result.plan = planned;
    for (const nn::EpochMetrics& epoch : state_.epochs) {
      result.train_seconds += epoch.train_seconds;
      result.evaluation_seconds += epoch.evaluation_seconds;
    }
    record_exits(planned, state_.epochs.back());
    state_.trained.merge(block->state());
    state_.epochs.clear();
    state_.weights.clear();
    state_.optimizer.clear();
    state_.partial = {};
    if (k + 1 < plan_.blocks.size() && !will_stop()) {
      const Timer timer;
      result.fill_wait_seconds = inputs_.fill(k, *block);
      result.cache_seconds = timer.seconds();
      note_peaks(before, result);
    }
    state_.blocks.push_back(std::move(result));
    if (continuation_.save) continuation_.save(state_);
  }

  void fit_block(std::size_t k, LocalBlock& block, const Stage& stage, TraceScope& trace,
                 const BlockResult& before) {
    const BlockInputs::Sources sources = inputs_.open(k, block, true);
    const auto note = [&] {
      note_peaks(before, state_.partial);
      state_.partial.cache_wait_seconds = before.cache_wait_seconds + sources.train_wait_seconds();
      state_.partial.evaluation_wait_seconds =
          before.evaluation_wait_seconds + sources.validation_wait_seconds();
    };
    nn::FitOptions fit = fit_options(options_, plan_.blocks[k].batch, data_.train_count());
    fit.name = describe(stage);
    nn::FitObserver observer = fit_observer(observer_, stage, trace);
    if (continuation_.save)
      observer.after_epoch = [&](const std::vector<nn::EpochMetrics>& epochs) {
        note();
        state_.epochs = epochs;
        state_.weights = block.state();
        state_.optimizer = block.optimizer_state();
        continuation_.save(state_);
      };
    state_.epochs = nn::fit(block, sources.train(), sources.validation(), fit, observer,
                            std::move(state_.epochs))
                        .epochs;
    note();
  }

  void note_peaks(const BlockResult& before, BlockResult& result) const {
    result.measured_peak_bytes =
        std::max(before.measured_peak_bytes, context_->pool().stats().peak_reserved);
    result.cache_host_bytes = std::max(before.cache_host_bytes, inputs_.host().peak());
  }

  bool will_stop() const {
    return options_.stop_when_saturated && data_.validation_count() > 0 && !state_.exits.empty() &&
           (has_accuracy(state_.exits, options_.exit_accuracy) ||
            saturated(state_.exits, options_.patience, options_.improvement));
  }

  std::size_t choose() const {
    if (has_accuracy(state_.exits, options_.delivered_accuracy))
      return choose_exit(state_.exits, options_.exit_tolerance, options_.delivered_accuracy);
    if (options_.deliver_whole_net) return state_.exits.size() - 1;
    return choose_exit(state_.exits, options_.exit_tolerance, options_.exit_accuracy);
  }

  void record_exits(const BlockPlan& planned, const nn::EpochMetrics& last_epoch) {
    for (std::int64_t i = planned.first_unit; i <= planned.last_unit; ++i) {
      const UnitPlan& unit = plan_.units[static_cast<std::size_t>(i)];
      const auto output = static_cast<std::size_t>(i - planned.first_unit);
      state_.exits.push_back({i, unit.exit_parameters, unit.exit_flops,
                              last_epoch.outputs[output].validation_accuracy});
    }
  }

  void remove_empty_folder() const noexcept {
    std::error_code not_empty;
    if (made_folder_) std::filesystem::remove(options_.cache_folder, not_empty);
  }

  void test() {
    if (data_.test_count() == 0) return;
    if (observer_.on_phase) observer_.on_phase({options_.method, 0, 0}, "testing");
    const Timer timer;
    const std::unique_ptr<nn::Loader> source = data_.test(inputs_.form());
    const StreamedForward forward(context_, net_, state_.trained, inputs_.batches());
    context_->pool().reset_peak();
    const std::int64_t correct = forward.count_correct(reader_of(*source, 0), source->count(),
                                                       state_.exits[result_.chosen].unit);
    result_.test_accuracy = static_cast<double>(correct) / static_cast<double>(data_.test_count());
    result_.evaluation_seconds += timer.seconds();
    result_.measured_peak_bytes = context_->pool().stats().peak_reserved;
  }

  LocalResult complete_result() {
    for (const BlockResult& block : state_.blocks) {
      result_.train_seconds += block.train_seconds + block.cache_seconds;
      result_.evaluation_seconds += block.evaluation_seconds;
      result_.predicted_peak_bytes =
          std::max(result_.predicted_peak_bytes, block.plan.predicted_peak_bytes);
      result_.measured_peak_bytes =
          std::max(result_.measured_peak_bytes, block.measured_peak_bytes);
    }
    result_.blocks = std::move(state_.blocks);
    result_.exits = std::move(state_.exits);
    result_.weights = std::move(state_.trained);
    return std::move(result_);
  }

  ContextPtr context_;
  const LocalNet& net_;
  const Plan& plan_;
  const nn::TrainingData& data_;
  const LocalTrainingOptions& options_;
  const TrainingObserver& observer_;
  const Continuation& continuation_;
  TrainingState state_;
  BlockInputs inputs_;
  bool made_folder_ = false;
  LocalResult result_;
};

}  // namespace

LocalResult train_locally(const ContextPtr& context, const LocalNet& net, const Plan& plan,
                          const nn::TrainingData& data, const LocalTrainingOptions& options,
                          const TrainingObserver& observer, const Continuation& continuation) {
  NF_CHECK(plan.fits && !plan.blocks.empty(),
           "train: the plan does not fit its budget of {} bytes; the least that does is {}",
           plan.budget, plan.minimum_budget);
  NF_CHECK(options.reference_batch >= 1, "train: the reference batch must be at least 1, got {}",
           options.reference_batch);
  return Run(context, net, plan, data, options, observer, continuation).run();
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
