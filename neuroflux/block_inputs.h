// What the blocks of a training learn from: images first, then what the block before left in the
// activation cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "neuroflux/local_block.h"
#include "neuroflux/local_trainer.h"
#include "neuroflux/run_caches.h"
#include "neuroflux/streamed_forward.h"

namespace nf {

/// The images of a data set as a plan counts on them: stored pixels or values.
nn::SampleForm planned_form(const Plan& plan, const nn::TrainingData& data);

class BlockInputs {
 public:
  /// `trained` are the weights of all blocks before the one that is trained. All but `context` are
  /// referred to.
  BlockInputs(ContextPtr context, const LocalNet& net, const Plan& plan,
              const nn::TrainingData& data, const LocalTrainingOptions& options,
              const TrainingObserver& observer, const nn::StateDict& trained);

  /// Both sets of one block; validation is null where there is none.
  class Sources {
   public:
    nn::BatchSource& train() const;
    nn::BatchSource* validation() const;
    /// Seconds for which the training set, the validation set, or both were waited for.
    double train_wait_seconds() const;
    double validation_wait_seconds() const;
    double wait_seconds() const;

   private:
    friend BlockInputs;
    std::unique_ptr<ViewedReader> train_, validation_;
    nn::Loader* train_images_ = nullptr;
    nn::Loader* validation_images_ = nullptr;
  };

  /// For block `k`, counted from 0; the training set shuffled (and augmented), or as it lies for
  /// filling the next cache. A damaged chunk is computed again, for which `block` leaves the
  /// device. Throws DataError for a cache that is missing or another training's.
  Sources open(std::size_t k, LocalBlock& block, bool shuffle);

  /// Runs trained block `k` over both sets and caches what comes out for the next. Returns the
  /// seconds for which storage was waited for.
  double fill(std::size_t k, LocalBlock& block);

  /// Whether block `k` can be trained from what lies there.
  bool available(std::size_t k) const;
  /// Computes the caches that block `k` learns from by all blocks before it, in the batches in
  /// which they filled theirs: the same bits. Nothing may be on the device.
  void make_again(std::size_t k);

  /// What block `k` filled.
  void remove(std::size_t k);
  /// After a failure: what can't be removed must not hide why the run failed.
  void remove_all() noexcept;

  /// The account of host memory that caches and their buffers take.
  HostMemory& host() const { return caches_.host(); }
  /// The batch of each unit: that of its block.
  const std::vector<std::int64_t>& batches() const { return batches_; }
  /// How images come to the device.
  nn::SampleForm form() const { return form_; }
  /// Block `k` on the device, as its training begins.
  std::unique_ptr<LocalBlock> make_block(std::size_t k) const;

 private:
  std::string origin() const;
  /// Block `k`'s, as they are made from the present weights of the units up to there.
  CacheGeneration generation(std::size_t k) const;
  std::unique_ptr<ViewedReader> readers(const std::vector<CacheSpec>& views,
                                        const nn::Loader& origin, std::size_t k, LocalBlock& block,
                                        bool shuffle);
  CacheReadOptions read_options(const CacheSpec& spec, std::int64_t view, const nn::Loader& origin,
                                std::size_t k, LocalBlock& block, bool shuffle);
  BetweenUnits round_between() const;
  double write(const CacheSpec& spec, std::int64_t view, std::size_t k, LocalBlock& block,
               nn::BatchSource& source, const std::vector<CacheSpec>& read);

  ContextPtr context_;
  const LocalNet& net_;
  const Plan& plan_;
  const nn::TrainingData& data_;
  const LocalTrainingOptions& options_;
  const TrainingObserver& observer_;
  const nn::StateDict& trained_;
  RunCaches caches_;
  nn::SampleForm form_;
  std::unique_ptr<nn::Loader> train_, train_in_order_, validation_;
  std::vector<std::int64_t> batches_;
  std::uint64_t run_key_ = 0;  // of configuration and images
};

/// "neuroflux block 2/3" of block `k`, counted from 0.
Stage stage_of(const LocalTrainingOptions& options, const Plan& plan, std::size_t k);

}  // namespace nf
