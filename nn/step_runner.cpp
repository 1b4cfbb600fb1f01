#include "nn/step_runner.h"

#include <algorithm>
#include <cstring>

namespace nf::nn {
namespace {

// Batch sizes whose steps are replayed, at most: a graph holds memory of its own outside the pool.
constexpr std::size_t kMostSizes = 4;

// In device memory, in front of the slots.
struct Header {
  std::uint64_t dropout_key = 0;
};

std::int64_t bytes_for(std::size_t slots) {
  return static_cast<std::int64_t>(sizeof(Header) + slots * sizeof(StepSlot));
}

Header* header_of(Tensor& memory) { return static_cast<Header*>(memory.mutable_view().data); }
StepSlot* slots_of(Tensor& memory) { return reinterpret_cast<StepSlot*>(header_of(memory) + 1); }

StepResults train_one_by_one(Chain chain, DeviceBatch batch, const StepOptions& options) {
  StepResults results;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    Tensor next;
    const bool last = i + 1 == chain.size();
    results.push_back(train_step(chain[i], std::exchange(batch.images, Tensor()), batch.labels,
                                 options, last ? nullptr : &next));
    batch.images = std::move(next);
  }
  return results;
}

void capture_all(Chain chain, DeviceBatch batch, double label_smoothing, Tensor& memory) {
  for (std::size_t i = 0; i < chain.size(); ++i) {
    Tensor next;
    const bool last = i + 1 == chain.size();
    capture_step(chain[i], std::exchange(batch.images, Tensor()), batch.labels, label_smoothing,
                 &header_of(memory)->dropout_key, slots_of(memory) + i, last ? nullptr : &next);
    batch.images = std::move(next);
  }
}

// A first update fills the optimizer's state, which no other does.
bool started(Chain chain) {
  return std::all_of(chain.begin(), chain.end(),
                     [](const Trainable& trainable) { return trainable.optimizer->steps() > 0; });
}

// The host looks at gradients in the middle of such a step.
bool capturable(Chain chain) {
  return std::none_of(chain.begin(), chain.end(), [](const Trainable& trainable) {
    return trainable.optimizer->options().check_finite;
  });
}

// A GPU loads a kernel when it is first launched, which a capture need not allow. Those of a step
// have run in the steps before, but for the copies of loss and norm: of 16 bytes at a time, of 4.
void launch_copies(Backend& backend, StepSlot* slot) {
  backend.copy({&slot->loss, DType::f32, {1}}, {&slot->loss, DType::f32, {1}});
  backend.copy({&slot->loss, DType::f32, {1}}, {&slot->norm, DType::f32, {1}});
}

}  // namespace

StepResults StepRunner::train(Chain chain, const HostBatch& batch, const StepOptions& options) {
  Staged staged = stage(chain, batch);
  const bool replays =
      context_->graphs() && !context_->is_meta() && !context_->pool().traced() && capturable(chain);
  if (replays && (known_.contains(batch.size) || known_.size() < kMostSizes)) {
    Known& known = known_[batch.size];
    if (Beginning now = beginning(staged, options); known.beginning != now) {
      known = {std::move(now)};
    } else {
      if (known.calls == nullptr && started(chain)) {
        capture(chain, std::move(staged), options, known);
        staged = stage(chain, batch);
      }
      if (known.calls != nullptr && known.beginning == beginning(staged, options))
        return replay(chain, staged, options, known);
    }
  }
  return train_one_by_one(chain, std::move(staged.batch), options);
}

void StepRunner::forget() { known_.clear(); }

StepRunner::Staged StepRunner::stage(Chain chain, const HostBatch& batch) const {
  Staged staged;
  // There for every step, so that all ask for the same memory.
  if (context_->graphs()) {
    const OpScope op("step_slots");
    staged.slots =
        Tensor::empty(context_, {bytes_for(chain.size())}, DType::u8, Category::workspace);
  }
  staged.batch = stage_batch(context_, batch);
  return staged;
}

StepRunner::Beginning StepRunner::beginning(const Staged& staged,
                                            const StepOptions& options) const {
  return {context_->pool().layout(), staged.slots.view().data, staged.batch.images.view().data,
          staged.batch.labels.view().data, options.label_smoothing};
}

// The step's memory is free afterwards, to be granted again at the same addresses.
void StepRunner::capture(Chain chain, Staged staged, const StepOptions& options, Known& known) {
  Pool& pool = context_->pool();
  Backend& backend = context_->backend();
  launch_copies(backend, slots_of(staged.slots));
  const PoolStats before = pool.stats();
  pool.reset_peak();
  backend.begin_capture();
  try {
    capture_all(chain, std::move(staged.batch), options.label_smoothing, staged.slots);
    known.calls = backend.end_capture();
  } catch (...) {
    backend.abandon_capture();
    pool.note_peaks(before.peak_live, before.peak_reserved);
    throw;
  }
  known.peak_live = pool.stats().peak_live;
  known.peak_reserved = pool.stats().peak_reserved;
  pool.note_peaks(before.peak_live, before.peak_reserved);
}

StepResults StepRunner::replay(Chain chain, Staged& staged, const StepOptions& options,
                               const Known& known) {
  std::vector<std::byte> image(static_cast<std::size_t>(staged.slots.bytes()));
  const Header header{options.dropout_key};
  std::vector<StepSlot> slots(chain.size());
  for (std::size_t i = 0; i < chain.size(); ++i) {
    const auto [decaying, others] = chain[i].optimizer->scalars(options.rate_factor);
    slots[i].decaying = decaying;
    slots[i].others = others;
  }
  const std::size_t slot_bytes = slots.size() * sizeof(StepSlot);
  std::memcpy(image.data(), &header, sizeof(header));
  std::memcpy(image.data() + sizeof(header), slots.data(), slot_bytes);
  staged.slots.copy_from_host(image.data());
  known.calls->replay();
  // Waits for the whole step, so that its memory is free for anyone.
  staged.slots.copy_to_host(image.data());
  context_->pool().note_peaks(known.peak_live, known.peak_reserved);
  ++replays_;
  std::memcpy(slots.data(), image.data() + sizeof(header), slot_bytes);
  StepResults results;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    const auto loss = static_cast<double>(slots[i].loss);
    check_loss(chain[i], loss, options);
    chain[i].optimizer->count_replayed(static_cast<double>(slots[i].norm));
    results.push_back({loss, slots[i].correct});
  }
  return results;
}

}  // namespace nf::nn
