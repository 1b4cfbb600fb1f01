// Runs what a training does, phase by phase, on any device, with the memory of each phase.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/random.h"
#include "neuroflux/local_block.h"
#include "nn/bp_trainer.h"

namespace nf::test {

/// Most bytes held during one phase.
struct PhasePeak {
  std::string phase;
  std::int64_t reserved = 0, live = 0;
  bool operator==(const PhasePeak&) const = default;
};

inline void PrintTo(const PhasePeak& peak, std::ostream* out) {
  *out << fmt::format("{}: {} reserved, {} live", peak.phase, peak.reserved, peak.live);
}

inline std::int64_t most_reserved(const std::vector<PhasePeak>& peaks) {
  std::int64_t most = 0;
  for (const PhasePeak& peak : peaks) most = std::max(most, peak.reserved);
  return most;
}

/// Batches of a run, each size once.
struct BatchSizes {
  std::vector<std::int64_t> train, evaluate;

  std::int64_t largest() const {
    return std::max(*std::max_element(train.begin(), train.end()),
                    evaluate.empty() ? 0 : *std::max_element(evaluate.begin(), evaluate.end()));
  }
};

/// Host data for batches of up to `size` samples, in either form; small values, so that no loss
/// overflows.
inline nn::Batch host_data(const Shape& sample, const std::optional<nn::PixelFormat>& format,
                           std::int64_t size) {
  const auto count = static_cast<std::size_t>(size);
  nn::Batch batch;
  batch.size = size;
  batch.format = format;
  RandomStream random(random_key(1, Purpose::test));
  if (format) {
    batch.pixels.resize(count * static_cast<std::size_t>(format->stored.numel()));
    for (std::uint8_t& value : batch.pixels) value = static_cast<std::uint8_t>(random.below(256));
    batch.windows.resize(count);
    batch.tables.resize(static_cast<std::size_t>(format->tables * 256));
    for (float& value : batch.tables) value = random.uniform() - 0.5F;
  } else {
    batch.images.resize(count * static_cast<std::size_t>(sample.numel()));
    for (float& value : batch.images) value = random.uniform() - 0.5F;
  }
  batch.labels.resize(count);
  for (std::int32_t& label : batch.labels) label = static_cast<std::int32_t>(random.below(2));
  return batch;
}

class PhaseRecorder {
 public:
  /// Nothing is read from or written to the host on a meta context.
  PhaseRecorder(const ContextPtr& context, const Shape& sample,
                const std::optional<nn::PixelFormat>& format, std::int64_t largest)
      : pool_(context->pool()), whole_{.size = largest, .sample = sample, .format = format} {
    if (context->is_meta()) return;
    data_ = host_data(sample, format, largest);
    whole_ = nn::host_batch(data_, sample);
  }

  template <typename Function>
  void run(const std::string& phase, Function function) {
    pool_.reset_peak();
    function();
    const PoolStats stats = pool_.stats();
    peaks_.push_back({phase, stats.peak_reserved, stats.peak_live});
  }

  nn::HostBatch batch(std::int64_t size) const { return whole_.part(0, size); }
  std::vector<PhasePeak> peaks() && { return std::move(peaks_); }

 private:
  Pool& pool_;
  nn::Batch data_;
  nn::HostBatch whole_;
  std::vector<PhasePeak> peaks_;
};

/// A trainer of the whole net, made with `arguments` more, from an empty pool.
template <typename Trainer, typename... Arguments>
std::vector<PhasePeak> whole_net_phases(const ContextPtr& context, nn::Model& model,
                                        const nn::OptimizerOptions& optimizer,
                                        const BatchSizes& sizes,
                                        const std::optional<nn::PixelFormat>& format,
                                        const Arguments&... arguments) {
  PhaseRecorder phases(context, model.options().input, format, sizes.largest());
  std::unique_ptr<Trainer> trainer;
  phases.run("place", [&] {
    trainer = std::make_unique<Trainer>(context, model, optimizer, 1, arguments...);
  });
  for (const std::int64_t size : sizes.train)
    phases.run(fmt::format("train {}", size), [&] { trainer->train(phases.batch(size), {}); });
  for (const std::int64_t size : sizes.evaluate)
    phases.run(fmt::format("evaluate {}", size), [&] { trainer->evaluate(phases.batch(size)); });
  return std::move(phases).peaks();
}

inline std::vector<PhasePeak> bp_phases(const ContextPtr& context, nn::Model& model,
                                        const nn::OptimizerOptions& optimizer,
                                        const BatchSizes& sizes,
                                        const std::optional<nn::PixelFormat>& format = {}) {
  return whole_net_phases<nn::BpTrainer>(context, model, optimizer, sizes, format);
}

/// A block: training, evaluation and, where it `fills_cache`, its outputs for the next block.
inline std::vector<PhasePeak> block_phases(const ContextPtr& context,
                                           const std::vector<LocalUnit>& units, const Shape& sample,
                                           const nn::OptimizerOptions& optimizer,
                                           const BatchSizes& sizes, bool fills_cache,
                                           const std::optional<nn::PixelFormat>& format = {}) {
  PhaseRecorder phases(context, sample, format, sizes.largest());
  std::unique_ptr<LocalBlock> block;
  phases.run("place",
             [&] { block = std::make_unique<LocalBlock>(context, units, sample, optimizer, 1); });
  for (const std::int64_t size : sizes.train)
    phases.run(fmt::format("train {}", size), [&] { block->train(phases.batch(size), {}); });
  for (const std::int64_t size : sizes.evaluate)
    phases.run(fmt::format("evaluate {}", size), [&] { block->evaluate(phases.batch(size)); });
  if (!fills_cache) return std::move(phases).peaks();
  std::vector<float> output(static_cast<std::size_t>(
      context->is_meta() ? 0 : sizes.largest() * block->output_sample_shape().numel()));
  std::vector<std::int64_t> outputs = sizes.train;
  outputs.insert(outputs.end(), sizes.evaluate.begin(), sizes.evaluate.end());
  for (const std::int64_t size : outputs)
    phases.run(fmt::format("fill {}", size), [&] {
      block->forward(phases.batch(size), context->is_meta() ? nullptr : output.data());
    });
  return std::move(phases).peaks();
}

}  // namespace nf::test
